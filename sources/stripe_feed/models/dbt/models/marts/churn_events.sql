with paid as (
    select
        customer_id,
        subscription_id,
        currency,
        mrr,
        valid_from,
        valid_to
    from {{ ref('int_stripe__net_mrr') }}
    where mrr > 0
),

churned as (
    select
        spans.customer_id as customer_id,
        spans.valid_to as churned_at,
        max(paid.valid_to) as last_paid_at
    from {{ ref('int_stripe__subscriber_spans') }} as spans
    inner join paid
        on spans.customer_id = paid.customer_id and spans.valid_from <= paid.valid_from and spans.valid_to > paid.valid_from
    where spans.valid_to is not null and spans.valid_to <= {{ as_of() }}
    group by spans.customer_id, spans.valid_to
),

began as (
    select
        customer_id,
        min(valid_from) as first_paid_at
    from paid
    group by customer_id
),

lost as (
    select
        churned.customer_id as customer_id,
        churned.churned_at as churned_at,
        paid.currency as currency,
        max(paid.subscription_id) as subscription_id,
        count(distinct paid.subscription_id) as subscriptions,
        cast(sum(paid.mrr) as {{ type_bigint() }}) as mrr_lost
    from churned
    inner join paid on churned.customer_id = paid.customer_id and churned.last_paid_at = paid.valid_to
    group by churned.customer_id, churned.churned_at, paid.currency
),

states as (
    select
        lost.customer_id as customer_id,
        lost.churned_at as churned_at,
        lost.currency as currency,
        images.status as status,
        row_number() over (
            partition by lost.customer_id, lost.churned_at, lost.currency
            order by images.changed_at desc, images.load_id desc, images.load_seq desc
        ) as newest
    from lost
    inner join {{ ref('int_stripe__subscription_images') }} as images
        on lost.subscription_id = images.subscription_id and lost.churned_at >= images.changed_at
    where images.side = 'after'
),

caused as (
    select
        lost.customer_id as customer_id,
        lost.churned_at as churned_at,
        lost.currency as currency,
        lost.subscription_id as subscription_id,
        lost.subscriptions as subscriptions,
        lost.mrr_lost as mrr_lost,
        began.first_paid_at as first_paid_at,
        subscriptions.cancellation_reason as cancellation_reason,
        subscriptions.cancellation_feedback as cancellation_feedback,
        case
            when {% if var('churn_timing') == 'cancel' %}coalesce(subscriptions.canceled_at, subscriptions.ended_at){% else %}subscriptions.ended_at{% endif %} <= lost.churned_at then 'canceled'
            when states.status in ('active', 'past_due') then 'free'
            else coalesce(states.status, 'unknown')
        end as cause
    from lost
    inner join began on lost.customer_id = began.customer_id
    left join {{ ref('stg_stripe__subscriptions') }} as subscriptions on lost.subscription_id = subscriptions.subscription_id
    left join states
        on lost.customer_id = states.customer_id and lost.churned_at = states.churned_at and lost.currency = states.currency and states.newest = 1
)

select
    customer_id,
    churned_at,
    currency,
    subscription_id,
    subscriptions,
    mrr_lost,
    {{ major('mrr_lost', 'currency') }} as mrr_lost_major,
    cause,
    case when cause = 'canceled' then cancellation_reason end as cancellation_reason,
    case when cause = 'canceled' then cancellation_feedback end as cancellation_feedback,
    case
        when cause = 'canceled' and cancellation_reason = 'cancellation_requested' then 'voluntary'
        when cause = 'canceled' and cancellation_reason in ('payment_failed', 'payment_disputed') then 'involuntary'
        when cause = 'unpaid' then 'involuntary'
        else 'unknown'
    end as kind,
    first_paid_at,
    cast({{ days_between(local_time('first_paid_at'), local_time('churned_at')) }} as {{ type_bigint() }}) as tenure_days
from caused
