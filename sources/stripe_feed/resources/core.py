"""The default group of resources: customers, invoices, subscriptions, products, plans, prices."""

from __future__ import annotations

from .model import Child, Column, Expandable, Resource, event_types, parse_columns

CORE: tuple[Resource, ...] = (
    Resource(
        table="customers",
        object="customer",
        permission="rak_customer_read",
        label="Core > Customers",
        events=(
            *event_types("customer", "created updated deleted"),
            *event_types("customer.discount", "created updated deleted"),
        ),
        deleted_event="customer.deleted",
        schema_since="2026-02-25",
        hides_test_clocks=True,
        volatile=("next_invoice_sequence",),
        excluded=("subscriptions",),
        columns=parse_columns("""
        id                    text      Id, `cus_...`.
        created               timestamp When the customer was created, UTC.
        email                 text      E-mail address; not unique, case as entered.
        name                  text      Full name or business name.
        individual_name       text      Name of the person.
        business_name         text      Name of the business.
        phone                 text      Phone number.
        description           text      Free text of the account's own.
        address               json      Billing address.
        shipping              json      Shipping address, with name and phone.
        preferred_locales     json      Languages for the customer's e-mails and invoices, in order of preference.
        currency              text      Currency of recurring billing, lower case; null until first billed.
        balance               bigint    Balance in minor units of `currency`; negative: credit of the customer.
        delinquent            bool      Whether the latest invoice failed or is late; cleared when it is paid.
        discount              json      Discount in force on the customer, with its coupon's id.
        tax_exempt            text      Tax exemption: none, exempt or reverse.
        default_source        ref       Default legacy payment source (id).
        invoice_prefix        text      Prefix of the customer's invoice numbers.
        next_invoice_sequence bigint    Suffix of the customer's next invoice number.
        invoice_settings      json      Defaults for invoices: payment method, custom fields, footer.
        customer_account      text      Id of the v2 account that represents the customer, `acct_...`.
        test_clock            ref       Test clock that the customer is on, in test mode (id).
        metadata              json      Key-value pairs of the account's own; values are strings.
        livemode              bool      True in live mode, false in test mode.
        object                text      Always `customer`.
        """),
        expandable=(
            Expandable(Column("tax", "json", "Location and status for automatic tax.")),
            Expandable(
                Column("sources", "json", "Legacy payment sources, a list."),
                path="/v1/customers/{id}/sources",
            ),
            Expandable(
                Column("tax_ids", "json", "Tax ids, a list."), path="/v1/customers/{id}/tax_ids"
            ),
            Expandable(
                Column(
                    "cash_balance", "json", "Funds that Stripe holds for the customer, minor units."
                )
            ),
            Expandable(
                Column("invoice_credit_balance", "json", "Balance per currency, in minor units.")
            ),
        ),
    ),
    Resource(
        table="products",
        object="product",
        permission="rak_product_read",
        label="Core > Products",
        events=event_types("product", "created updated deleted"),
        deleted_event="product.deleted",
        client_ids=True,
        schema_since="2026-09-30",
        columns=parse_columns("""
        id                   text      Id; `prod_...` or chosen by the account.
        created              timestamp When the product was created, UTC.
        updated              timestamp When the product last changed, UTC.
        name                 text      Name shown to customers.
        active               bool      Whether it can be sold; false: archived.
        description          text      Description shown to customers.
        type                 text      Legacy kind: good or service.
        default_price        ref       Default price (id).
        unit_label           text      What one unit is called on invoices and receipts.
        statement_descriptor text      Text on the customer's card statement.
        tax_code             ref       Tax code (id).
        tax_details          json      Tax code and place of performance.
        shippable            bool      Whether it is shipped.
        package_dimensions   json      Height, length and width in inches, weight in ounces.
        images               json      URLs of up to 8 images.
        marketing_features   json      Up to 15 features, as pricing tables show them.
        url                  text      Its public web page.
        metadata             json      Key-value pairs of the account's own; values are strings.
        livemode             bool      True in live mode, false in test mode.
        object               text      Always `product`.
        """),
    ),
    Resource(
        table="prices",
        object="price",
        permission="rak_plan_read",
        label="Billing > Prices",
        events=event_types("price", "created updated deleted"),
        deleted_event="price.deleted",
        client_ids=True,
        schema_since="2025-03-31",
        list_filters=((("active", "true"),), (("active", "false"),)),
        columns=parse_columns("""
        id                  text      Id, `price_...`; a plan's own id where the price began as a plan.
        created             timestamp When the price was created, UTC.
        product             ref       Product that is sold (id).
        active              bool      Whether it can be used for new purchases; false: archived.
        nickname            text      Name inside the account, hidden from customers.
        lookup_key          text      The account's own key; it can move to another price.
        type                text      Kind: one_time or recurring.
        currency            text      Currency, lower case.
        unit_amount         bigint    Price of a unit in minor units; null if fractional or tiered.
        unit_amount_decimal decimal   Price of a unit in minor units, with up to 12 decimals; null if tiered.
        billing_scheme      text      How it is computed: per_unit or tiered.
        tiers_mode          text      How tiers add up: graduated or volume.
        recurring           json      Interval, usage type and meter; null for one-time prices.
        custom_unit_amount  json      Limits in minor units where the customer chooses the amount.
        transform_quantity  json      Division and rounding of the quantity before it is billed.
        tax_behavior        text      Whether the price contains tax: inclusive, exclusive or unspecified.
        metadata            json      Key-value pairs of the account's own; values are strings.
        livemode            bool      True in live mode, false in test mode.
        object              text      Always `price`.
        """),
        expandable=(
            Expandable(Column("tiers", "json", "Price tiers, in minor units.")),
            Expandable(
                Column(
                    "currency_options",
                    "json",
                    "Prices in other currencies, in minor units, by currency.",
                )
            ),
        ),
    ),
    Resource(
        table="plans",
        object="plan",
        permission="rak_plan_read",
        label="Billing > Prices",
        events=event_types("plan", "created updated deleted"),
        deleted_event="plan.deleted",
        client_ids=True,
        schema_since="2025-03-31",
        columns=parse_columns("""
        id                text      Id: of the price it mirrors, or chosen by the account.
        created           timestamp When the plan was created, UTC.
        product           ref       Product that is sold (id); null if the product was deleted.
        active            bool      Whether it can be used for new purchases; false: archived.
        nickname          text      Name inside the account, hidden from customers.
        currency          text      Currency, lower case.
        amount            bigint    Price of a unit in minor units; null if fractional or tiered.
        amount_decimal    decimal   Price of a unit in minor units, with up to 12 decimals; null if tiered.
        interval          text      Unit of the billing period: day, week, month or year.
        interval_count    bigint    Number of intervals in a billing period.
        billing_scheme    text      How it is computed: per_unit or tiered.
        tiers_mode        text      How tiers add up: graduated or volume.
        usage_type        text      How quantity is known: licensed or metered.
        meter             text      Meter that measures the usage (id).
        transform_usage   json      Division and rounding of the quantity before it is billed.
        trial_period_days bigint    Default length of a trial in days.
        metadata          json      Key-value pairs of the account's own; values are strings.
        livemode          bool      True in live mode, false in test mode.
        object            text      Always `plan`.
        """),
        expandable=(Expandable(Column("tiers", "json", "Price tiers, in minor units.")),),
    ),
    Resource(
        table="subscriptions",
        object="subscription",
        permission="rak_subscription_read",
        label="Billing > Subscriptions",
        events=(
            *event_types(
                "customer.subscription",
                "created updated deleted paused resumed trial_will_end pending_update_applied pending_update_expired",
            ),
            *event_types("customer.discount", "created updated deleted"),
        ),
        schema_since="2026-09-30",
        map_fields=("payment_settings", "pending_update"),
        list_filters=((("status", "all"),),),
        hides_test_clocks=True,
        columns=parse_columns("""
        id                                text      Id, `sub_...`.
        created                           timestamp When the subscription was created, UTC.
        customer                          ref       Customer who is billed (id).
        status                            text      State, such as active, trialing, past_due or canceled.
        status_details                    json      More about the status, such as since when it is paused.
        currency                          text      Currency, lower case.
        collection_method                 text      How it is collected: charge_automatically or send_invoice.
        description                       text      Description shown to the customer.
        start_date                        timestamp When it began, UTC; can be before `created`.
        billing_cycle_anchor              timestamp Moment that billing periods align to, UTC.
        billing_cycle_anchor_config       json      Day, month and time that the anchor was computed from.
        trial_start                       timestamp Start of the trial, UTC.
        trial_end                         timestamp End of the trial, UTC.
        trial_settings                    json      What happens at the trial's end.
        cancel_at_period_end              bool      Whether it ends, or ended, with the current period.
        cancel_at                         timestamp When it is going to be canceled, UTC.
        canceled_at                       timestamp When the cancellation was asked for, UTC.
        ended_at                          timestamp When it really ended, UTC.
        cancellation_details              json      Reason, feedback and comment of the cancellation.
        latest_invoice                    ref       Newest invoice (id).
        next_pending_invoice_item_invoice timestamp When pending invoice items are billed next, UTC.
        pending_invoice_item_interval     json      How often pending invoice items are billed.
        days_until_due                    bigint    Days to pay an invoice; null if charged automatically.
        discounts                         json      Ids of its discounts.
        default_payment_method            ref       Payment method for its invoices (id).
        default_source                    ref       Legacy payment source for its invoices (id).
        default_tax_rates                 json      Tax rates for items without their own.
        automatic_tax                     json      Settings of automatic tax.
        payment_settings                  json      Payment methods and their options for its invoices.
        invoice_settings                  json      Issuer, tax ids and texts of its invoices.
        billing_mode                      json      How prorations and invoices are computed: classic or flexible.
        billing_schedules                 json      How far ahead its items are billed.
        billing_thresholds                json      Amount or usage that triggers an invoice, amount in minor units.
        pause_collection                  json      How collection is paused; `status` stays the same.
        pending_setup_intent              ref       Setup intent that waits for the customer (id).
        pending_update                    json      Change that applies once its invoice is paid.
        presentment_details               json      Currency shown to the customer.
        managed_payments                  json      Settings of managed payments.
        schedule                          ref       Subscription schedule (id).
        application                       ref       Connect application that created it (id).
        application_fee_percent           double    Share of each invoice for the application, in percent.
        on_behalf_of                      ref       Account that the charges are made for (id).
        transfer_data                     json      Account that receives each payment, and its share.
        customer_account                  text      Id of the v2 account that represents the customer, `acct_...`.
        test_clock                        ref       Test clock that it is on, in test mode (id).
        metadata                          json      Key-value pairs of the account's own; values are strings.
        livemode                          bool      True in live mode, false in test mode.
        object                            text      Always `subscription`.
        """),
        children=(
            Child(
                field="items",
                table="subscription_items",
                object="subscription_item",
                parent="subscription",
                path="/v1/subscription_items",
                params=(("subscription", "{id}"),),
                embeds=(("price", "prices"), ("plan", "plans")),
                columns=parse_columns("""
                id                   text      Id, `si_...`.
                created              timestamp When the item was created, UTC.
                subscription         text      Subscription that it belongs to (id).
                quantity             bigint    Number of units; null where usage is metered.
                price                json      Its price, the whole object.
                plan                 json      The same price, as a legacy plan object.
                current_period_start timestamp Start of the current billing period, UTC.
                current_period_end   timestamp End of the current billing period, UTC.
                billed_until         timestamp Time up to which it is billed, UTC.
                current_trial        json      Trial in progress: start, end and offer.
                billing_thresholds   json      Usage that triggers an invoice.
                discounts            json      Ids of its discounts.
                tax_rates            json      Its tax rates; they replace the subscription's.
                metadata             json      Key-value pairs of the account's own; values are strings.
                object               text      Always `subscription_item`.
                """),
            ),
        ),
    ),
    Resource(
        table="invoices",
        object="invoice",
        permission="rak_invoice_read",
        label="Billing > Invoices",
        events=event_types(
            "invoice",
            "created updated deleted finalized finalization_failed sent paid payment_succeeded payment_failed "
            "payment_action_required payment_attempt_required overdue overpaid will_be_due marked_uncollectible voided",
        ),
        deleted_event="invoice.deleted",
        schema_since="2026-09-30",
        bearer_links=("hosted_invoice_url", "invoice_pdf"),
        map_fields=("payment_settings", "last_finalization_error"),
        volatile=("webhooks_delivered_at", "hosted_invoice_url", "invoice_pdf"),
        excluded=("confirmation_secret",),
        columns=parse_columns("""
        id                               text      Id, `in_...`.
        created                          timestamp When the draft was created, UTC; not when it was finalized.
        number                           text      Number on the invoice; usually null while a draft.
        customer                         ref       Customer who is billed (id).
        status                           text      State: draft, open, paid, uncollectible or void.
        status_details                   json      More about the status, such as why it is uncollectible.
        status_transitions               json      When it was finalized, paid, voided, written off; Unix seconds.
        parent                           json      What made it: a subscription or a quote, with its id.
        billing_reason                   text      Why it was made, such as manual or subscription_cycle.
        collection_method                text      How it is collected: charge_automatically or send_invoice.
        currency                         text      Currency, lower case.
        total                            bigint    Total after discounts and tax, in minor units; can be negative.
        subtotal                         bigint    Total before invoice discounts and exclusive tax, minor units.
        total_excluding_tax              bigint    Total after discounts without tax, in minor units.
        subtotal_excluding_tax           bigint    Subtotal without any tax, in minor units.
        amount_due                       bigint    Amount due, in minor units.
        amount_paid                      bigint    Amount paid, in minor units.
        amount_paid_off_stripe           bigint    Amount paid outside of Stripe, in minor units.
        amount_remaining                 bigint    Amount still to pay, in minor units.
        amount_overpaid                  bigint    Amount paid too much, credited to the customer, in minor units.
        amount_shipping                  bigint    Sum of the shipping amounts, in minor units.
        starting_balance                 bigint    Customer balance before it was finalized, in minor units.
        ending_balance                   bigint    Customer balance after; null until finalized, in minor units.
        pre_payment_credit_notes_amount  bigint    Credit notes issued before payment, in minor units.
        post_payment_credit_notes_amount bigint    Credit notes issued after payment, in minor units.
        total_discount_amounts           json      Amount per discount over all lines, in minor units.
        total_pretax_credit_amounts      json      Credits before tax over all lines, in minor units.
        total_taxes                      json      Amount per tax over all lines, in minor units.
        due_date                         timestamp When payment is due, UTC; null if charged automatically.
        effective_at                     timestamp Date of issue on the invoice, UTC.
        period_start                     timestamp Start of what it collects, UTC; not the service period.
        period_end                       timestamp End of what it collects, UTC; not the service period.
        automatically_finalizes_at       timestamp When the draft is going to be finalized, UTC.
        next_payment_attempt             timestamp When payment is tried next, UTC.
        webhooks_delivered_at            timestamp When its webhooks were all delivered, UTC.
        attempted                        bool      Whether a payment was tried.
        attempt_count                    bigint    Number of scheduled payment attempts.
        auto_advance                     bool      Whether Stripe finalizes and collects it on its own.
        description                      text      Memo on the invoice.
        footer                           text      Footer on the invoice.
        custom_fields                    json      Custom fields on the invoice.
        statement_descriptor             text      Text on the customer's card statement.
        receipt_number                   text      Number on the receipts sent for it.
        hosted_invoice_url               text      Link to pay it, open to whoever holds it; null until finalized.
        invoice_pdf                      text      Link to its PDF, open to whoever holds it; null until finalized.
        customer_name                    text      The customer's name, frozen when finalized.
        customer_email                   text      The customer's e-mail address, frozen when finalized.
        customer_phone                   text      The customer's phone number, frozen when finalized.
        customer_address                 json      The customer's address, frozen when finalized.
        customer_shipping                json      The customer's shipping details, frozen when finalized.
        customer_tax_exempt              text      The customer's tax exemption, frozen when finalized.
        customer_tax_ids                 json      The customer's tax ids, frozen when finalized.
        customer_account                 text      Id of the v2 account that represents the customer, `acct_...`.
        account_country                  text      Country of the business that bills.
        account_name                     text      Name of the business that bills.
        account_tax_ids                  json      Ids of the business's tax ids.
        issuer                           json      Account that issues it.
        application                      ref       Connect application that created it (id).
        on_behalf_of                     ref       Account that the payment is for (id).
        discounts                        json      Ids of its discounts.
        default_payment_method           ref       Payment method for it (id).
        default_source                   ref       Legacy payment source for it (id).
        default_tax_rates                json      Tax rates for lines without their own.
        automatic_tax                    json      Settings and status of automatic tax.
        payment_settings                 json      Payment methods and their options.
        rendering                        json      How page and PDF are rendered.
        shipping_cost                    json      Shipping rate and its cost, in minor units.
        shipping_details                 json      Shipping address on the invoice.
        threshold_reason                 json      Threshold that triggered it.
        from_invoice                     json      Invoice that it revises.
        latest_revision                  ref       Newest revision of it (id).
        last_finalization_error          json      Why finalizing it failed last.
        test_clock                       ref       Test clock that it is on, in test mode (id).
        metadata                         json      Key-value pairs of the account's own; values are strings.
        livemode                         bool      True in live mode, false in test mode.
        object                           text      Always `invoice`.
        """),
        expandable=(
            Expandable(
                Column("payments", "json", "Payments, a list; amounts in minor units."),
                path="/v1/invoice_payments",
                params=(("invoice", "{id}"),),
            ),
        ),
        children=(
            Child(
                field="lines",
                table="invoice_line_items",
                object="line_item",
                parent="invoice",
                path="/v1/invoices/{id}/lines",
                columns=parse_columns("""
                id                    text    Id, `il_...`.
                invoice               text    Invoice that it belongs to (id).
                subscription          ref     Subscription that it bills (id).
                description           text    What is billed.
                currency              text    Currency, lower case.
                amount                bigint  Amount in minor units; negative for credits.
                subtotal              bigint  Amount before discounts and tax, in minor units.
                quantity              bigint  Number of units, decimals cut off.
                quantity_decimal      decimal Number of units, exact.
                period                json    Start and end of the service period, Unix seconds.
                pricing               json    Ids of price and product, unit amount in minor units.
                parent                json    Subscription item or invoice item behind it, and proration.
                discountable          bool    Whether discounts apply; false for prorations.
                discounts             json    Ids of its discounts.
                discount_amounts      json    Amount per discount, in minor units.
                pretax_credit_amounts json    Credits before tax, in minor units.
                taxes                 json    Amount per tax, in minor units.
                metadata              json    Key-value pairs; of the subscription, where it bills one.
                livemode              bool    True in live mode, false in test mode.
                object                text    Always `line_item`.
                """),
            ),
        ),
    ),
)
"""The default group."""
