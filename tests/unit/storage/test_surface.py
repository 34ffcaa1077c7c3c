"""What others may import."""

import pilotage.storage


def test_the_package_offers_its_contract_and_its_backends() -> None:
    assert sorted(pilotage.storage.__all__) == [
        "Backend",
        "Batch",
        "CompactedError",
        "ConflictError",
        "Copied",
        "CorruptError",
        "EtcdBackend",
        "Event",
        "EventType",
        "KeyValue",
        "Listing",
        "MemoryBackend",
        "Operation",
        "OverrunError",
        "SqliteBackend",
        "StorageError",
        "TooLargeError",
        "UnavailableError",
        "Watch",
        "backup",
        "open_backend",
        "restore",
    ]
