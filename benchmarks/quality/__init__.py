"""The method's experiments on real data: every method on every task, one set of rules for all.

python -m benchmarks.quality --task a --method csq ours --bits 32 64 --seeds 3     trains and measures what is missing
python -m benchmarks.quality --task e-open e-half --bits 64 --data ../shared/data    rows without labels
python -m benchmarks.quality --task j --data ../shared/data                        few-shot, all four of its tasks
python -m benchmarks.quality --task l --data ../shared/data                        graded retrieval by bytes an item
python -m benchmarks.quality --tables                                             writes docs/results.md from the JSON

Rules: one split of the data for all methods; the same encoder, optimiser and number of steps; as many validated
settings for each method; settings are chosen on validation data, by one seed at 64 bits, never on test queries; metrics
are expectations over ties. A run is one line of benchmarks/results/quality/TASK.jsonl, so an interrupted command goes
on where it was.
"""
