{{ config(materialized='view') }}

{%- set tables = ['customers', 'products', 'prices', 'plans', 'subscriptions', 'subscription_items', 'invoices', 'invoice_line_items'] %}
{%- for table in ['coupons', 'discounts', 'charges', 'refunds', 'disputes', 'balance_transactions', 'payouts', 'payout_balance_transactions'] if table in var('loaded_tables') %}
{%- set _ = tables.append(table) %}
{%- endfor %}

with counted as (
{%- for table in tables %}
    select
        '{{ table }}' as table_name,
        count(*) as stored_rows,
        count(deleted_at) as deleted_rows,
        max(_dlt_load_id) as last_load_id
    from {{ source('stripe', table) }}
    union all
{%- endfor %}
    select
        'changes' as table_name,
        count(*) as stored_rows,
        cast(0 as {{ type_bigint() }}) as deleted_rows,
        max(_dlt_load_id) as last_load_id
    from {{ source('stripe', 'changes') }}
),

changed as (
    select
        resource as table_name,
        max(changed_at) as last_change_at,
        sum(case when is_late then 1 else 0 end) as late_changes
    from {{ ref('stg_stripe__changes') }}
    group by resource
),

orphans as (
    select
        'invoices' as table_name,
        count(*) as orphaned_rows
    from {{ ref('stg_stripe__invoices') }} as invoices
    left join {{ ref('stg_stripe__customers') }} as customers on invoices.customer_id = customers.customer_id
    where invoices.customer_id is not null and customers.customer_id is null
    union all
    select
        'subscriptions' as table_name,
        count(*) as orphaned_rows
    from {{ ref('stg_stripe__subscriptions') }} as subscriptions
    left join {{ ref('stg_stripe__customers') }} as customers on subscriptions.customer_id = customers.customer_id
    where customers.customer_id is null
    union all
    select
        'subscription_items' as table_name,
        count(*) as orphaned_rows
    from {{ ref('stg_stripe__subscription_items') }} as items
    left join {{ ref('stg_stripe__subscriptions') }} as subscriptions on items.subscription_id = subscriptions.subscription_id
    where subscriptions.subscription_id is null
    union all
    select
        'invoice_line_items' as table_name,
        count(*) as orphaned_rows
    from {{ ref('stg_stripe__invoice_line_items') }} as lines
    left join {{ ref('stg_stripe__invoices') }} as invoices on lines.invoice_id = invoices.invoice_id
    where invoices.invoice_id is null
)

select
    counted.table_name as table_name,
    cast(counted.stored_rows as {{ type_bigint() }}) as stored_rows,
    cast(counted.deleted_rows as {{ type_bigint() }}) as deleted_rows,
    cast(coalesce(orphans.orphaned_rows, 0) as {{ type_bigint() }}) as orphaned_rows,
    changed.last_change_at as last_change_at,
    cast(coalesce(changed.late_changes, 0) as {{ type_bigint() }}) as late_changes,
    {{ utc('loads.inserted_at') }} as last_loaded_at,
    cast({{ days_between(utc('loads.inserted_at'), as_of()) }} as {{ type_bigint() }}) as days_since_load,
    {{ as_of() }} as as_of
from counted
left join changed on counted.table_name = changed.table_name
left join orphans on counted.table_name = orphans.table_name
left join {{ source('stripe', '_dlt_loads') }} as loads on counted.last_load_id = loads.load_id and loads.status = 0
