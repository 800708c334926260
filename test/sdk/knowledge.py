"""Files and vector stores with the SDK's own helpers, each answer held strictly against the SDK's types."""

import io
import json
import os
import pathlib

import openai

import harness
from harness import CANARY, check, client, raises, run

c = client()
DOCS = pathlib.Path(os.environ["DOCS"])


def same(got, want, what="value"):
    harness.same(got, want, what)


def strict(obj, object_name=None):
    type(obj).model_validate_json(c.record.body, strict=True)
    if object_name:
        same(obj.object, object_name, "object")
    return obj


def upload(name, text, **more):
    return c.files.create(file=(name, text if isinstance(text, bytes) else text.encode()), purpose=more.pop("purpose", "assistants"), **more)


@check
def upload_list_get_content_delete():
    f = strict(upload("notes.txt", "some notes " + CANARY), "file")
    same((f.filename, f.purpose, f.bytes, f.status, f.expires_at), ("notes.txt", "assistants", len("some notes " + CANARY), "processed", None))
    same(strict(c.files.retrieve(f.id)), f)
    same(c.files.content(f.id).read(), ("some notes " + CANARY).encode())
    same(c.files.wait_for_processing(f.id).id, f.id)
    other = strict(upload("data.json", '{"a": 1}', purpose="user_data", expires_after={"anchor": "created_at", "seconds": 3600}))
    same(other.expires_at, other.created_at + 3600)
    same([x.id for x in c.files.list(purpose="user_data")], [other.id])
    for order in ["asc", "desc"]:
        want = [f.id, other.id] if order == "asc" else [other.id, f.id]
        got = [x.id for x in c.files.list(order=order, limit=1)]
        same([x for x in got if x in want], want)
    for x in [f, other]:
        d = strict(c.files.delete(x.id), "file")
        same((d.id, d.deleted), (x.id, True))
    for call in [c.files.retrieve, c.files.content, c.files.delete]:
        with raises(openai.NotFoundError, 404):
            call(f.id)


@check
def refused_clearly():
    for purpose in ["fine-tune", "batch", "vision", "evals", "nonsense"]:
        with raises(openai.BadRequestError, 400) as e:
            upload("a.txt", "text", purpose=purpose)
        same(e.error.param, "purpose")
    for name, text in [("a.exe", b"MZ\x00"), ("a.pdf", b"no pdf"), ("a.txt", b"a\x00b"), ("empty.txt", b""), ("noend", b"text")]:
        with raises(openai.BadRequestError, 400) as e:
            upload(name, text)
        same(e.error.param, "file")
    with raises(openai.BadRequestError, 400) as e:
        upload("a.txt", "text", expires_after={"anchor": "created_at", "seconds": 5})
    same(e.error.param, "expires_after.seconds")
    same([x.filename for x in c.files.list()], [], "what was refused is not kept")


@check
def upload_and_poll_pdf_docx_markdown():
    store = strict(c.vector_stores.create(name="handbook", metadata={"team": "people"}, description="What holds for all"), "vector_store")
    same((store.name, store.status, store.file_counts.total, store.metadata), ("handbook", "completed", 0, {"team": "people"}))
    files = {}
    for name, category in [("travel.pdf", "travel"), ("holidays.docx", "holidays"), ("canteen.md", "canteen")]:
        f = c.vector_stores.files.upload_and_poll(vector_store_id=store.id, file=DOCS / name, attributes={"category": category, "year": 2026.0, "valid": True})
        strict(f, "vector_store.file")
        same((f.status, f.last_error, f.attributes["category"], f.attributes["year"], f.attributes["valid"]), ("completed", None, category, 2026.0, True))
        same((f.chunking_strategy.type, f.chunking_strategy.static.max_chunk_size_tokens), ("static", 800))
        assert f.usage_bytes > 0
        files[category] = f
    store = strict(c.vector_stores.retrieve(store.id))
    same((store.status, store.file_counts.completed, store.file_counts.total, store.usage_bytes),
         ("completed", 3, 3, sum(f.usage_bytes for f in files.values())))
    same({x.id for x in c.vector_stores.files.list(store.id, limit=2)}, {f.id for f in files.values()})
    same([x.id for x in c.vector_stores.files.list(store.id, filter="failed")], [])

    for question, category in [("Who books the trains?", "travel"), ("How many days of holiday are there?", "holidays"), ("When does the canteen open?", "canteen")]:
        page = c.vector_stores.search(store.id, query=question, max_num_results=3)
        raw = json.loads(c.record.body)
        same((raw["object"], raw["search_query"], raw["has_more"], raw["next_page"]), ("vector_store.search_results.page", [question], False, None))
        hits = list(page)
        same((hits[0].file_id, hits[0].filename, hits[0].attributes["category"]), (files[category].id, {"travel": "travel.pdf", "holidays": "holidays.docx", "canteen": "canteen.md"}[category], category))
        assert hits[0].content[0].type == "text" and hits[0].content[0].text and 0 <= hits[0].score <= 1
        same(sorted((h.score for h in hits), reverse=True), [h.score for h in hits], "the best come first")
    only = list(c.vector_stores.search(store.id, query="trains holiday canteen", filters={"type": "eq", "key": "category", "value": "canteen"}))
    same({h.file_id for h in only}, {files["canteen"].id})
    both = list(c.vector_stores.search(store.id, query=["trains", "holiday", "canteen"], filters={"type": "and", "filters": [
        {"type": "in", "key": "category", "value": ["travel", "holidays"]}, {"type": "gte", "key": "year", "value": 2026}]}))
    same({h.file_id for h in both}, {files["travel"].id, files["holidays"].id})

    page = c.vector_stores.files.content(files["holidays"].id, vector_store_id=store.id)
    same(json.loads(c.record.body)["object"], "vector_store.file_content.page")
    assert "thirty days" in "".join(x.text for x in page), page
    f = strict(c.vector_stores.files.update(files["travel"].id, vector_store_id=store.id, attributes={"category": "canteen"}))
    same((f.attributes, f.status), ({"category": "canteen"}, "completed"))
    only = list(c.vector_stores.search(store.id, query="trains", filters={"type": "eq", "key": "category", "value": "canteen"}))
    assert files["travel"].id in {h.file_id for h in only}

    d = strict(c.vector_stores.files.delete(files["travel"].id, vector_store_id=store.id), "vector_store.file.deleted")
    same(d.id, files["travel"].id)
    assert files["travel"].id not in {h.file_id for h in c.vector_stores.search(store.id, query="Who books the trains?")}
    same(c.files.retrieve(files["travel"].id).id, files["travel"].id, "the file itself stays")
    c.files.delete(files["holidays"].id)
    assert files["holidays"].id not in {h.file_id for h in c.vector_stores.search(store.id, query="holiday")}
    same(c.vector_stores.retrieve(store.id).file_counts.total, 1)
    d = strict(c.vector_stores.delete(store.id), "vector_store.deleted")
    same(d.deleted, True)
    for call in [c.vector_stores.retrieve, c.vector_stores.delete, lambda i: c.vector_stores.search(i, query="x"), c.vector_stores.files.list]:
        with raises(openai.NotFoundError, 404):
            call(store.id)
    for f in c.files.list():
        c.files.delete(f.id)


@check
def batches():
    store = c.vector_stores.create(name="batch")
    batch = c.vector_stores.file_batches.upload_and_poll(store.id, files=[
        (f"part-{i}.txt", f"This is part {i} of the whole.".encode()) for i in range(6)] + [("broken.pdf", b"%PDF-1.4 broken")])
    strict(batch, "vector_store.files_batch")
    same((batch.status, batch.file_counts.completed, batch.file_counts.failed, batch.file_counts.in_progress, batch.file_counts.total), ("completed", 6, 1, 0, 7))
    failed = list(c.vector_stores.file_batches.list_files(batch.id, vector_store_id=store.id, filter="failed"))
    same(len(failed), 1)
    same(failed[0].last_error.code, "invalid_file")
    assert "PDF" in failed[0].last_error.message, failed[0].last_error
    same(len(list(c.vector_stores.file_batches.list_files(batch.id, vector_store_id=store.id, limit=3))), 7)
    same(strict(c.vector_stores.file_batches.retrieve(batch.id, vector_store_id=store.id)).id, batch.id)
    cancelled = strict(c.vector_stores.file_batches.cancel(batch.id, vector_store_id=store.id))
    same((cancelled.status, cancelled.file_counts.completed), ("cancelled", 6))
    ids = [x.id for x in c.vector_stores.files.list(store.id)]
    again = c.vector_stores.file_batches.create_and_poll(store.id, files=[
        {"file_id": ids[0], "attributes": {"category": "one"}, "chunking_strategy": {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 20}}}])
    f = c.vector_stores.files.retrieve(ids[0], vector_store_id=store.id)
    same((f.status == "completed" or f.last_error is not None, f.attributes, f.chunking_strategy.static.max_chunk_size_tokens), (True, {"category": "one"}, 100))
    same(again.file_counts.total, 1)
    c.vector_stores.delete(store.id)
    for x in ids:
        c.files.delete(x)


@check
def update_expiry_and_mistakes():
    f = upload("a.md", "# A\n\ntext")
    store = strict(c.vector_stores.create(name="one", file_ids=[f.id], expires_after={"anchor": "last_active_at", "days": 7},
                                          chunking_strategy={"type": "static", "static": {"max_chunk_size_tokens": 200, "chunk_overlap_tokens": 100}}))
    same(store.expires_at, store.last_active_at + 7 * 86400)
    same(c.vector_stores.files.poll(f.id, vector_store_id=store.id).chunking_strategy.static.chunk_overlap_tokens, 100)
    store = strict(c.vector_stores.update(store.id, name="two", metadata={"k": "v"}, expires_after=None))
    same((store.name, store.metadata, store.expires_at), ("two", {"k": "v"}, None))
    same({store.id} <= {x.id for x in c.vector_stores.list(limit=1)}, True)
    for param, call in {
        "chunking_strategy.static.max_chunk_size_tokens": lambda: c.vector_stores.create(file_ids=[f.id], chunking_strategy={"type": "static", "static": {"max_chunk_size_tokens": 50, "chunk_overlap_tokens": 20}}),
        "chunking_strategy.static.chunk_overlap_tokens": lambda: c.vector_stores.create(file_ids=[f.id], chunking_strategy={"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 51}}),
        "expires_after.days": lambda: c.vector_stores.create(expires_after={"anchor": "last_active_at", "days": 0}),
        "metadata": lambda: c.vector_stores.create(metadata={str(i): "x" for i in range(17)}),
        "attributes": lambda: c.vector_stores.files.create(store.id, file_id=f.id, attributes={"k": "x" * 513}),
        "max_num_results": lambda: c.vector_stores.search(store.id, query="x", max_num_results=51),
        "query": lambda: c.vector_stores.search(store.id, query=" "),
        "filters.type": lambda: c.vector_stores.search(store.id, query="x", filters={"type": "like", "key": "a", "value": "b"}),
        "ranking_options.score_threshold": lambda: c.vector_stores.search(store.id, query="x", ranking_options={"score_threshold": 2}),
        "filter": lambda: c.vector_stores.files.list(store.id, filter="lost"),
        "limit": lambda: c.vector_stores.list(limit=101),
    }.items():
        with raises(openai.BadRequestError, 400) as e:
            call()
        same(e.error.param, param)
    for call in [lambda: c.vector_stores.create(file_ids=["file-000000000000000000000000"]),
                 lambda: c.vector_stores.files.create(store.id, file_id="file-000000000000000000000000"),
                 lambda: c.vector_stores.files.retrieve("file-000000000000000000000000", vector_store_id=store.id),
                 lambda: c.vector_stores.file_batches.retrieve("vsfb_000000000000000000000000", vector_store_id=store.id)]:
        with raises(openai.NotFoundError, 404):
            call()
    same([x.name for x in c.vector_stores.list()], ["two"], "what was refused is not kept")
    c.vector_stores.delete(store.id)
    c.files.delete(f.id)


@check
def large_file_is_streamed():
    text = b"A line of a large file of text.\n" * (10 << 15)  # 10 MiB
    f = c.files.create(file=("large.txt", io.BytesIO(text)), purpose="assistants")
    same(f.bytes, len(text))
    with c.files.with_streaming_response.content(f.id) as answer:
        same(sum(len(b) for b in answer.iter_bytes()), len(text))
        assert "attachment" in answer.headers["content-disposition"], answer.headers
    c.files.delete(f.id)


run()
