import pytest

from pilotage.dns.external import parse_key
from pilotage.kit.errors import UsageError


@pytest.mark.parametrize("text", ["", "a:b", "hmac-sha256:k:not base64", "rot13:k:c2VjcmV0"])
def test_what_is_no_key_is_refused_without_telling_it(text: str) -> None:
    with pytest.raises(UsageError) as failure:
        parse_key(text)
    assert "c2VjcmV0" not in str(failure.value)
