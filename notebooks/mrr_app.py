"""MRR of a copy as a marimo app: `marimo run notebooks/mrr_app.py -- --database stripe_feed.duckdb`.

It needs the extras `marimo` and `notebooks`, and models that are built: `stripe-feed models build`.
"""

import marimo

app = marimo.App(width="medium", app_title="MRR")


@app.cell
def _():
    import marimo as mo

    from stripe_feed import open_copy
    from stripe_feed.report.charts import chart_png, mrr_chart

    copy = open_copy(mo.cli_args().get("database"))
    currencies = [
        name
        for (name,) in copy.sql("select currency from mrr_summary group by 1 order by 1").fetchall()
    ]
    assert currencies, "There is no MRR in this copy."
    return chart_png, copy, currencies, mo, mrr_chart


@app.cell
def _(currencies, mo):
    currency = mo.ui.dropdown(currencies, value=currencies[0], label="currency")
    currency  # noqa: B018, a cell shows its last expression
    return (currency,)


@app.cell
def _(chart_png, copy, currency, mo, mrr_chart):
    monthly = copy.sql(f"""
        select month, basis, sum(mrr)::bigint as mrr from mrr_monthly_customer
        where currency = '{currency.value}' and mrr > 0 group by all order by month, basis
    """)
    rows = monthly.to_arrow_table().to_pylist()
    mo.image(chart_png(mrr_chart(rows, currency.value)))
    return


@app.cell
def _(copy, currency, mo):
    summary = copy.table("mrr_summary").filter(f"currency = '{currency.value}'").order("month desc")
    mo.ui.table(summary.df(), selection=None)
    return (summary,)


if __name__ == "__main__":
    app.run()
