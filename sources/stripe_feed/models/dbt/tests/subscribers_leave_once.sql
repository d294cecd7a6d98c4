{# A customer is a subscriber in one span at a time, and each span that is over is a churn event. #}
select spans.customer_id as customer_id, spans.valid_from as valid_from, spans.valid_to as valid_to, spans.next_from as next_from
from (
    select
        customer_id, valid_from, valid_to,
        lead({{ nullable('valid_from') }}) over (partition by customer_id order by valid_from) as next_from
    from {{ ref('int_stripe__subscriber_spans') }}
) as spans
left join (select distinct customer_id, churned_at from {{ ref('churn_events') }}) as events
    on events.customer_id = spans.customer_id and events.churned_at = spans.valid_to
where
    (spans.next_from is not null and (spans.valid_to is null or spans.valid_to >= spans.next_from))
    or (spans.valid_to <= (select max(closes_at) from {{ ref('months') }}) and events.customer_id is null)
