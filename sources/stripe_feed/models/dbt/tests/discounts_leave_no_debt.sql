{# A discount takes at most what is left. #}
select subscription_item_id, valid_from, gross_mrr, discount, mrr
from {{ ref('int_stripe__net_mrr') }}
where mrr < 0 or discount < 0
