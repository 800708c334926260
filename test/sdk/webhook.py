"""Verifies with the SDK a webhook that the gateway has sent: its body, headers and secret come from the environment."""

import json
import os

import openai

from harness import check, client, run, same

BODY, SECRET = os.environ["WEBHOOK_BODY"], os.environ["WEBHOOK_SECRET"]
HEADERS = json.loads(os.environ["WEBHOOK_HEADERS"])
hooks = client().webhooks


@check
def the_signature_is_right():
    hooks.verify_signature(BODY, HEADERS, secret=SECRET)
    event = json.loads(BODY)
    same((event["object"], event["type"], event["id"]), ("event", "spend_alert.triggered", HEADERS["webhook-id"]), "event")


@check
def nothing_else_has_it():
    for body, headers, secret in (
        (BODY + " ", HEADERS, SECRET),
        (BODY, {**HEADERS, "webhook-id": "evt_other"}, SECRET),
        (BODY, {**HEADERS, "webhook-timestamp": str(int(HEADERS["webhook-timestamp"]) - 1)}, SECRET),
        (BODY, {**HEADERS, "webhook-timestamp": str(int(HEADERS["webhook-timestamp"]) - 3600)}, SECRET),
        (BODY, HEADERS, "whsec_" + "A" * 43 + "="),
    ):
        try:
            hooks.verify_signature(body, headers, secret=secret)
        except openai.InvalidWebhookSignatureError:
            continue
        raise AssertionError("a webhook was taken that was changed")


run()
