"""SQLAlchemy's core over psycopg, unmodified."""

import decimal

import sqlalchemy as sa


def test_core(server):
    # The look for hstore would need a savepoint.
    url = f"postgresql+psycopg://evert@{server.sql}/evert"
    engine = sa.create_engine(url, use_native_hstore=False)
    accounts = sa.Table(
        "accounts",
        sa.MetaData(),
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("owner", sa.Text),
        sa.Column("balance", sa.Numeric(12, 2)),
    )
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE accounts (id bigint PRIMARY KEY, owner text, balance numeric(12,2))")
    with engine.begin() as connection:
        rows = [{"id": n, "owner": f"n{n % 3}", "balance": decimal.Decimal(n)} for n in range(30)]
        connection.execute(accounts.insert(), rows)
    with engine.connect() as connection:
        total = sa.func.sum(accounts.c.balance).label("total")
        query = sa.select(accounts.c.owner, total).group_by(accounts.c.owner).order_by(accounts.c.owner)
        assert connection.execute(query).all() == [("n0", 135), ("n1", 145), ("n2", 155)]
        picked = sa.select(accounts.c.id).where(accounts.c.id.in_([1, 2, 99])).order_by(accounts.c.id)
        assert connection.execute(picked).scalars().all() == [1, 2]
    engine.dispose()
