{# An item is in one state at a time. #}
select subscription_item_id, valid_from, valid_to, next_from
from (
    select
        subscription_item_id, valid_from, valid_to,
        lead({{ nullable('valid_from') }}) over (partition by subscription_item_id order by valid_from) as next_from
    from {{ ref('subscription_item_history') }}
) as spans
where next_from is not null and (valid_to is null or valid_to > next_from)
