"""moto's KMS, with answers as AWS gives them where moto 5.2.5 gives others.

- Sign takes MessageType=DIGEST for what it is, and checks the digest's length; moto signs the digest as if it were the
  message. PSS has a salt as long as the digest; moto takes the longest that fits.
- Sign and GetPublicKey refuse a key that is disabled or to be deleted, and one of another usage, with AWS's own errors.
- GetPublicKey names the key by its ARN, and says its KeySpec.
- Encrypt and Decrypt refuse a key that is disabled, to be deleted or asymmetric; Decrypt with another key than the one that
  encrypted is IncorrectKeyException. Both say with which algorithm.
- ScheduleKeyDeletion takes an ARN, refuses a key that is to be deleted already and a time out of bounds, and answers with
  the ARN; moto fails inside, does it again, and answers with null.

Listens on a free port of 127.0.0.1, prints the port, and ends when its standard input does: so it can't outlive a test
run, however that ends.
"""

import base64
import json
import sys

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils
from moto.core.exceptions import JsonRESTError
from moto.kms.exceptions import InvalidCiphertextException
from moto.kms.responses import KmsResponse
from moto.kms.utils import decrypt as open_blob
from moto.server import ThreadedMotoServer

HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
MAX_MESSAGE_BYTES = 4096


def usable_key(request):
    """The key that the request is about, if it is in a state to be used."""
    key_id = request._get_param("KeyId")
    request._validate_key_id(key_id)
    key = request.kms_backend.describe_key(key_id)
    if key.key_state == "Disabled":
        raise JsonRESTError("DisabledException", f"{key.arn} is disabled.")
    if key.key_state != "Enabled":
        raise JsonRESTError("KMSInvalidStateException", f"{key.arn} is {key.key_state}.")
    return key


def sign(request):
    """https://docs.aws.amazon.com/kms/latest/APIReference/API_Sign.html"""
    key = usable_key(request)
    algorithm = request._get_param("SigningAlgorithm")
    message = request._get_param("Message")
    if key.key_usage != "SIGN_VERIFY" or algorithm not in key.signing_algorithms:
        raise JsonRESTError("InvalidKeyUsageException", f"{key.arn} can't be used for {algorithm}.")
    digest = hashing = HASHES[algorithm[-3:]]
    if request._get_param("MessageType", "RAW") == "DIGEST":
        if len(message) != digest.digest_size:
            raise JsonRESTError("ValidationException", f"Digest is invalid length for algorithm {algorithm}.")
        hashing = utils.Prehashed(digest)
    elif not 0 < len(message) <= MAX_MESSAGE_BYTES:
        raise JsonRESTError("ValidationException", "Message is too short or too long.")
    private_key = key.private_key.private_key
    if algorithm.startswith("ECDSA"):
        signature = private_key.sign(message, ec.ECDSA(hashing))
    elif algorithm.startswith("RSASSA_PSS"):
        signature = private_key.sign(message, padding.PSS(padding.MGF1(digest), digest.digest_size), hashing)
    else:
        signature = private_key.sign(message, padding.PKCS1v15(), hashing)
    answer = {"KeyId": key.arn, "Signature": base64.b64encode(signature).decode(), "SigningAlgorithm": algorithm}
    return json.dumps(answer)


def get_public_key(request):
    """https://docs.aws.amazon.com/kms/latest/APIReference/API_GetPublicKey.html"""
    key = usable_key(request)
    if key.key_spec == "SYMMETRIC_DEFAULT" or key.key_spec.startswith("HMAC"):
        raise JsonRESTError("UnsupportedOperationException", f"{key.arn} has no public key.")
    answer = {
        "KeyId": key.arn,
        "KeySpec": key.key_spec,
        "CustomerMasterKeySpec": key.key_spec,
        "KeyUsage": key.key_usage,
        "PublicKey": base64.b64encode(key.private_key.public_key()).decode(),
    }
    if key.key_usage == "SIGN_VERIFY":
        answer["SigningAlgorithms"] = key.signing_algorithms
    else:
        answer["EncryptionAlgorithms"] = key.encryption_algorithms
    return json.dumps(answer)


def symmetric_key(request):
    """The key that the request is about, if it can do what is asked with an encryption context."""
    key = usable_key(request)
    algorithm = request._get_param("EncryptionAlgorithm", "SYMMETRIC_DEFAULT")
    if key.key_spec != "SYMMETRIC_DEFAULT" or algorithm != "SYMMETRIC_DEFAULT":
        raise JsonRESTError("InvalidKeyUsageException", f"{key.arn} can't be used for {algorithm}.")
    return key


def encrypt(request):
    """https://docs.aws.amazon.com/kms/latest/APIReference/API_Encrypt.html"""
    key = symmetric_key(request)
    answer = json.loads(moto_encrypt(request))
    return json.dumps({**answer, "KeyId": key.arn, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"})


def decrypt(request):
    """https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html"""
    key = symmetric_key(request)
    blob = request._get_param("CiphertextBlob")
    keys = request.kms_backend.keys
    named = blob[: len(key.id)].decode("ascii", "replace")
    if named not in keys:
        raise InvalidCiphertextException()
    if named != key.id:
        raise JsonRESTError("IncorrectKeyException", f"The ciphertext is not of {key.arn}.")
    plaintext, _ = open_blob(keys, blob, request._get_param("EncryptionContext", {}))
    answer = {"KeyId": key.arn, "Plaintext": base64.b64encode(plaintext).decode()}
    return json.dumps({**answer, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"})


def schedule_key_deletion(request):
    """https://docs.aws.amazon.com/kms/latest/APIReference/API_ScheduleKeyDeletion.html"""
    key_id = request._get_param("KeyId")
    request._validate_cmk_id(key_id)
    key = request.kms_backend.describe_key(key_id)
    days = request._get_param("PendingWindowInDays", 30)
    if not 7 <= days <= 30:
        raise JsonRESTError("ValidationException", "PendingWindowInDays must be between 7 and 30.")
    if key.key_state == "PendingDeletion":
        raise JsonRESTError("KMSInvalidStateException", f"{key.arn} is pending deletion.")
    date = request.kms_backend.schedule_key_deletion(key.id, days)
    answer = {"KeyId": key.arn, "DeletionDate": date, "KeyState": key.key_state, "PendingWindowInDays": days}
    return json.dumps(answer)


moto_encrypt = KmsResponse.encrypt
KmsResponse.encrypt = encrypt
KmsResponse.decrypt = decrypt
KmsResponse.schedule_key_deletion = schedule_key_deletion
KmsResponse.sign = sign
KmsResponse.get_public_key = get_public_key

server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
