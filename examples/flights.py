"""Flights that nobody prepared, as a raw csv: missing values, text, rare tails of planes, dates and times.

python examples/flights.py [FILE.csv] [ROWS]        then        altmin train pipelines/flights.toml
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

AIRPORTS = ["ATL", "BOS", "DEN", "JFK", "LAX", "ORD", "SEA", "SFO"]


def flights(rows: int, seed: int = 0) -> pd.DataFrame:
    """Make flights, of which those are late that leave in the evening, in winter, or from a busy airport."""
    rng = np.random.default_rng(seed)
    minutes = rng.integers(0, 366 * 24 * 60, rows)
    departure = pd.Timestamp("2024-01-01") + pd.to_timedelta(minutes, unit="min")
    distance = rng.gamma(2.0, 600.0, rows).round()
    origin = rng.choice(len(AIRPORTS), rows, p=[0.25, 0.05, 0.1, 0.15, 0.15, 0.2, 0.05, 0.05])
    hour, month = departure.hour.to_numpy(), departure.month.to_numpy()
    busy = np.isin(origin, [0, 3, 5])
    late = (
        1.2 * np.sin(2 * np.pi * (hour - 12) / 24) + 1.2 * np.cos(2 * np.pi * (month - 1) / 12) + 1.5 * busy
    )
    late += 0.0005 * distance + rng.normal(0, 0.3, rows)
    return pd.DataFrame(
        {
            "departure": departure.strftime("%Y-%m-%d %H:%M"),
            "origin": pd.Series(np.array(AIRPORTS)[origin]).mask(rng.random(rows) < 0.03),
            "tail": [f"N{number:05d}" for number in rng.zipf(1.3, rows) % 3000],
            "distance": pd.Series(distance).mask(rng.random(rows) < 0.05),
            "passengers": pd.Series(rng.integers(20, 300, rows))
            .astype("Int64")
            .mask(rng.random(rows) < 0.02),
            "arrival": np.where(late > np.median(late), "late", "on time"),
        }
    )


if __name__ == "__main__":
    file = Path(sys.argv[1] if len(sys.argv) > 1 else "flights.csv")
    flights(int(sys.argv[2]) if len(sys.argv) > 2 else 20_000).to_csv(file, index=False)
    print(f"wrote {file}")
