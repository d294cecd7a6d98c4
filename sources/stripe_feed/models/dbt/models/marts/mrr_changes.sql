with bounds as (
    select {{ as_of() }} as as_of
),

{#- Each span adds its value where it begins and takes it away where it ends. #}
steps as (
    select
        customer_id, currency, subscription_id, subscription_item_id, price_id, valid_from as changed_at,
        mrr as amount, discount as discount_step, coalesce(quantity, 1) as quantity_step, 1 as price_step, basis
    from {{ ref('int_stripe__net_mrr') }}
    union all
    select
        customer_id, currency, subscription_id, subscription_item_id, price_id, valid_to as changed_at,
        -mrr as amount, -discount as discount_step, -coalesce(quantity, 1) as quantity_step, -1 as price_step, basis
    from {{ ref('int_stripe__net_mrr') }}
    where valid_to is not null
),

{#- Most spans end where one of the same value begins: only what is left over is looked at further. #}
moved as (
    select customer_id, currency, subscription_id, changed_at, {{ total('amount') }} as amount
    from steps
    where changed_at <= (select as_of from bounds)
    group by customer_id, currency, subscription_id, changed_at
    having sum(amount) <> 0
),

{#- A span that ends where an equal one begins is no step: it is gone here. #}
by_item as (
    select
        steps.customer_id as customer_id,
        steps.currency as currency,
        steps.subscription_id as subscription_id,
        steps.changed_at as changed_at,
        steps.price_id as price_id,
        steps.basis as basis,
        sum(steps.amount) as amount,
        sum(steps.discount_step) as discount_step,
        sum(steps.quantity_step) as quantity_step,
        sum(steps.price_step) as price_step
    from steps
    inner join moved on
        moved.customer_id = steps.customer_id
        and moved.currency = steps.currency
        and moved.subscription_id = steps.subscription_id
        and moved.changed_at = steps.changed_at
    group by steps.customer_id, steps.currency, steps.subscription_id, steps.changed_at, steps.subscription_item_id, steps.price_id, steps.basis
    having sum(steps.amount) <> 0 or sum(steps.discount_step) <> 0 or sum(steps.quantity_step) <> 0 or sum(steps.price_step) <> 0
),

by_price as (
    select
        customer_id, currency, subscription_id, changed_at, price_id,
        sum(amount) as amount,
        sum(discount_step) as discount_step,
        sum(quantity_step) as quantity_step,
        sum(price_step) as price_step,
        max(case basis when 'assumed' then 3 when 'invoice' then 2 else 1 end) as basis_rank
    from by_item
    group by customer_id, currency, subscription_id, changed_at, price_id
),

by_subscription as (
    select
        customer_id, currency, subscription_id, changed_at,
        {{ total('amount') }} as amount,
        sum(abs(price_step)) as price_steps,
        sum(abs(quantity_step)) as quantity_steps,
        sum(abs(discount_step)) as discount_steps,
        max(basis_rank) as basis_rank
    from by_price
    group by customer_id, currency, subscription_id, changed_at
),

by_customer as (
    select customer_id, currency, changed_at, {{ total('amount') }} as amount
    from by_subscription
    group by customer_id, currency, changed_at
),

customers as (
    select
        customer_id, currency, changed_at, amount,
        {{ running('amount', 'customer_id, currency', 'changed_at') }} as mrr_after
    from by_customer
),

customers_before as (
    select
        customer_id, currency, changed_at, mrr_after, mrr_after - amount as mrr_before,
        max(mrr_after) over (partition by customer_id, currency order by changed_at rows between unbounded preceding and 1 preceding) as highest_before
    from customers
),

subscriptions as (
    select
        by_subscription.*,
        {{ running('amount', 'subscription_id, currency', 'changed_at') }} as mrr_after
    from by_subscription
),

subscriptions_before as (
    select
        subscriptions.*,
        mrr_after - amount as mrr_before,
        max(mrr_after) over (partition by subscription_id, currency order by changed_at rows between unbounded preceding and 1 preceding) as highest_before
    from subscriptions
)

select
    changes.customer_id as customer_id,
    changes.currency as currency,
    changes.subscription_id as subscription_id,
    changes.changed_at as changed_at,
    changes.amount as amount,
    {{ major('changes.amount', 'changes.currency') }} as amount_major,
    changes.mrr_before as subscription_mrr_before,
    changes.mrr_after as subscription_mrr_after,
    customers.mrr_before as customer_mrr_before,
    customers.mrr_after as customer_mrr_after,
    case
        when customers.mrr_before = 0 and customers.mrr_after > 0 and coalesce(customers.highest_before, 0) = 0 then 'new'
        when customers.mrr_before = 0 and customers.mrr_after > 0 then 'reactivation'
        when customers.mrr_before > 0 and customers.mrr_after = 0 then 'churn'
        when changes.amount > 0 then 'expansion'
        else 'contraction'
    end as kind,
    case
        when changes.mrr_before = 0 and coalesce(changes.highest_before, 0) = 0 then 'subscription_started'
        when changes.mrr_before = 0 then 'subscription_resumed'
        when changes.mrr_after = 0 then 'subscription_ended'
        when changes.price_steps > 0 then 'plan'
        when changes.quantity_steps > 0 then 'quantity'
        when changes.discount_steps > 0 then 'discount'
        else 'price'
    end as reason,
    case changes.basis_rank when 3 then 'assumed' when 2 then 'invoice' else 'observed' end as basis,
    bounds.as_of as as_of
from subscriptions_before as changes
inner join customers_before as customers on
    customers.customer_id = changes.customer_id
    and customers.currency = changes.currency
    and customers.changed_at = changes.changed_at
cross join bounds
where changes.amount <> 0
