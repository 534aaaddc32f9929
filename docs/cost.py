#!/usr/bin/env python3
"""What a month costs, from list prices: python3 docs/cost.py [--records N …] [--changed SHARE] [--tokens N] …

Prices are those of us-east-1 in US dollars, without free tiers, as their makers' pages listed them in 2026; the address of
each page stands beside its price. Other regions cost some 10 to 25 % more. Look before you rely on it.
"""

import argparse

HOURS, MINUTES = 730, 730 * 60

LAMBDA_GB_SECOND = 0.0000133334  # arm64; aws.amazon.com/lambda/pricing
LAMBDA_REQUEST = 0.20 / 1e6
SCHEDULE = 1.00 / 1e6  # an invocation; aws.amazon.com/eventbridge/pricing
SECRET, SECRET_CALL = 0.40, 0.05 / 1e4  # a month, a call; aws.amazon.com/secrets-manager/pricing
LOG_GB, METRIC, ALARM, DASHBOARD = 0.50, 0.30, 0.10, 3.00  # a month; aws.amazon.com/cloudwatch/pricing
ACU_HOUR, STORAGE_GB, IO = 0.12, 0.10, 0.20 / 1e6  # Aurora Serverless v2; aws.amazon.com/rds/aurora/pricing
PROXY_ACU_HOUR, PROXY_LEAST = 0.015, 8  # aws.amazon.com/rds/proxy/pricing
NAT_HOUR = 0.045  # aws.amazon.com/vpc/pricing
# For a million tokens: openai.com/api/pricing, ai.google.dev/pricing; `cronvec backfill --dry-run` takes the same.
TOKENS = {"static": 0.0, "text-embedding-3-small": 0.02, "text-embedding-3-large": 0.13, "gemini-embedding-001": 0.15}
WIDTHS = {"static": 256, "text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "gemini-embedding-001": 3072}

# Of template.yaml: secrets it makes, metrics that shared/call/src/metrics.rs tells for each function, alarms.
SECRETS, METRICS, ALARMS = 3, 27, 22
MEMORY_GB = {"vectorization": 0.5, "ingestion": 0.25}
# What a tick without work takes and writes to the log: two lines of its own, two of Lambda's, the metrics' line.
IDLE_SECONDS, TICK_LOG_BYTES = 0.05, 3_000
# A page of the log of changes and of the table, for each eighth record: a rough guess, to be replaced by one's own bill.
IO_PER_CHUNK = 4


def month(records, options):
    """Dollars by item for a month in which this many records are kept and a share of them changes."""
    changed = records * options.changed
    chunks = max(1.0, options.tokens / 512)
    # Vector, text and the row's rest; an index of vectors is about as large again.
    width = WIDTHS[options.model]
    chunk_bytes = 4 * width + 4 * options.tokens / chunks + 150
    storage_gb = records * chunks * (chunk_bytes * 2 + 4 * options.tokens / chunks) / 1e9
    busy_seconds = changed / options.rate
    ticks = 2 * MINUTES + 30
    idle = IDLE_SECONDS * MINUTES
    gb_seconds = (busy_seconds + idle) * MEMORY_GB["vectorization"] + idle * MEMORY_GB["ingestion"]
    # An ACU has 2 GiB. A search wants the index of vectors in memory; how much of it is a matter of what is asked.
    wanted = records * chunks * 4 * width * options.memory / 2**31
    acu = max(options.acu or wanted, 0.5)
    items = {
        "schedules": ticks * SCHEDULE,
        "functions": ticks * LAMBDA_REQUEST + gb_seconds * LAMBDA_GB_SECOND,
        "secrets": (SECRETS + 2) * SECRET + 100 * SECRET_CALL,
        "logs, metrics, alarms": ticks * TICK_LOG_BYTES / 1e9 * LOG_GB + METRICS * METRIC + ALARMS * ALARM + DASHBOARD,
        "tokens": changed * options.tokens / 1e6 * TOKENS[options.model],
        "database, ticking": acu * HOURS * ACU_HOUR,
        "database, storage and I/O": storage_gb * STORAGE_GB + changed * chunks * IO_PER_CHUNK * IO,
    }
    if options.nat:
        items["NAT gateways"] = options.nat * HOURS * NAT_HOUR
    if options.proxy:
        items["proxy"] = max(acu, PROXY_LEAST) * HOURS * PROXY_ACU_HOUR
    first = records * options.tokens / 1e6 * TOKENS[options.model]
    return items, storage_gb, first, acu


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, nargs="+", default=[10_000, 1_000_000, 100_000_000])
    parser.add_argument("--model", choices=TOKENS, default="text-embedding-3-small")
    parser.add_argument("--tokens", type=int, default=200, help="of a record")
    parser.add_argument("--changed", type=float, default=0.1, help="share of the records that changes in the month")
    parser.add_argument("--rate", type=float, default=500, help="records a second of one worker, see docs/SCALING.md")
    parser.add_argument("--memory", type=float, default=0.25, help="share of the vectors' index that stays in memory")
    parser.add_argument("--acu", type=float, help="of the database, on average, instead; at least 0.5: it never pauses")
    parser.add_argument("--nat", type=int, default=0, help="NAT gateways")
    parser.add_argument("--proxy", action="store_true")
    options = parser.parse_args()
    months = [month(records, options) for records in options.records]
    print(f"{options.model}, {options.tokens} tokens a record, {options.changed:.0%} changed a month\n")
    rows = [["US dollars a month"] + [f"{records:,} records" for records in options.records]]
    for name in months[0][0]:
        rows.append([name] + [f"{items[name]:,.2f}" for items, _, _, _ in months])
    rows.append(["together"] + [f"{sum(items.values()):,.2f}" for items, _, _, _ in months])
    rows.append(["ACU"] + [f"{acu:,.1f}" for _, _, _, acu in months])
    rows.append(["storage, GB"] + [f"{storage:,.1f}" for _, storage, _, _ in months])
    rows.append(["once, for all tokens"] + [f"{first:,.2f}" for _, _, first, _ in months])
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    for row in rows:
        print(row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:])), sep="  ")


if __name__ == "__main__":
    main()
