"""Samples become documents: pixels by policy, random numbers from one source, and errors that name their place."""

import io
import itertools
import json
import pickle
import random
import re
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from vedere.data.formats import DatasetInfo, JsonlRecords
from vedere.data.loader import Loader, LoaderConfig
from vedere.data.mixture import Part
from vedere.data.packing import PackLimits, collate
from vedere.data.prepare import SamplePreparer
from vedere.data.shards import ShardWriter, TarRecords
from vedere.errors import ConfigError, RecordError, VedereError
from vedere.plan import HDPolicy, SpanKind, SquarePolicy, TilingPolicy, plan_media
from vedere.text.chat import get_template
from vedere.text.tokenizer import Tokenizer
from vedere.vision import global_view, hd_canvas, normalise, open_image, tower_inputs

TEMPLATE = "internvl2_5"
POLICY = TilingPolicy(tile=56, patch=14, downsample=2, max_tiles=6)  # 4 tokens a tile


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Bytes as tokens, plus the template's special strings."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Inner

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Inner(models.BPE(vocab={letter: k for k, letter in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"]
    inner.add_special_tokens([AddedToken(text, special=True) for text in special])
    folder = tmp_path_factory.mktemp("tokenizer")
    inner.save(str(folder / "tokenizer.json"))
    return Tokenizer.load(folder)


def picture(width=120, height=60, seed=0, form="JPEG"):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def clip(path, frames=12):
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            image = Image.new("RGB", (64, 48), (number * 20, 0, 0))
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())


@pytest.fixture
def records(tmp_path):
    (tmp_path / "wide.jpg").write_bytes(picture())
    (tmp_path / "tall.jpg").write_bytes(picture(60, 180, 1))
    clip(tmp_path / "clip.mp4")

    def line(identity, question, answer="Yes.", **media):
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
        return json.dumps({"id": identity, **media, "conversations": turns})

    lines = [
        line("one", "Wide?", image="wide.jpg"),
        line("two", "Compare <image> and <image>", image=["wide.jpg", "tall.jpg"]),
        line("text", "Hello?"),
        line("clip", "Moving?", video="clip.mp4", clip=[0, 2]),
        line("gone", "Where?", image="gone.jpg"),
        line("mute", "Why?", answer=" "),
    ]
    path = tmp_path / "mixed.jsonl"
    path.write_text("\n".join(lines))
    return JsonlRecords(path, root=tmp_path, info=DatasetInfo(name="mixed", augment=True))


class Only:
    """One record of others."""

    def __init__(self, records, index):
        self.records, self.index = records, index

    def __len__(self):
        return 1

    def __getitem__(self, _):
        return self.records[self.index]


def shown(pack):
    """All of a pack as something that compares."""
    arrays = (pack.ids, pack.labels, pack.segments, pack.span_types, pack.tiles, pack.weights)
    return [array.tobytes() for array in arrays] + [pack.spans, pack.names, pack.grids]


def test_samples_become_documents(tokenizer, records):
    preparer = SamplePreparer(tokenizer=tokenizer, template=get_template(TEMPLATE), policy=POLICY, frames=(3, 5))
    one, two, text, video = (preparer(records[k], random.Random(0)) for k in range(4))
    assert len(one.tiles) == 3  # 2 x 1 and the thumbnail
    assert len(two.tiles) == 3 + 4  # the limit of 6 is shared: 2 x 1 and 1 x 3, and their thumbnails
    assert text.tiles.shape == (0, 3, 56, 56)
    assert 3 <= len(video.tiles) <= 5
    for document in (one, two, text, video):
        assert np.count_nonzero(document.span_types == SpanKind.VISUAL) == 4 * len(document.tiles)
        assert tokenizer.decode(document.ids[document.labels != -100], skip_special=False) == "Yes.<|im_end|>"


def test_hd_pictures_become_documents_and_packs(tokenizer, records):
    """8-bit tiles of the grid travel; packs count, and models get, the global views as well."""
    policy = HDPolicy(tile=56, limit=3)
    preparer = SamplePreparer(tokenizer=tokenizer, template=get_template(TEMPLATE), policy=policy, augment="never")
    documents = [preparer(records[k], random.Random(0)) for k in range(3)]
    assert [document.grids for document in documents] == [((2, 1),), ((2, 1), (1, 3)), ()]
    assert [len(document.tiles) for document in documents] == [2, 2 + 3, 0]
    assert [document.tile_count for document in documents] == [3, 3 + 4, 0]
    for document, sizes in zip(documents, ([(120, 60)], [(120, 60), (60, 180)], []), strict=True):
        plans = [plan_media(*size, policy) for size in sizes]
        kinds = Counter(document.span_types.tolist())
        del kinds[SpanKind.TEXT]
        assert kinds == Counter(kind for plan in plans for kind, length in plan.spans for _ in range(length))
        assert tokenizer.decode(document.ids[document.labels != -100], skip_special=False) == "Yes.<|im_end|>"
    pack = collate(documents)
    inputs = iter(tower_inputs(torch.from_numpy(pack.tiles), pack.grids, "clip"))
    for file in ("wide.jpg", "wide.jpg", "tall.jpg"):
        image = open_image(records.root / file)
        canvas = normalise(torch.from_numpy(hd_canvas(image, plan_media(*image.size, policy))), "clip")
        assert torch.equal(next(inputs), global_view(canvas, 56))
        for local in canvas.unflatten(2, (-1, 56)).unflatten(1, (-1, 56)).permute(1, 3, 0, 2, 4).flatten(0, 1):
            assert torch.equal(next(inputs), local)
    assert next(inputs, None) is None
    records.info = DatasetInfo(name="mixed", max_tiles=1)
    assert preparer(records[1], random.Random(0)).grids == ((1, 1), (1, 1))


def test_documents_are_shown_high_and_the_rest_at_drawn_sizes(tokenizer, records):
    """Mixed resolutions of 4KHD: the named data set at its limit, others between their own size and the policy's."""
    settings = {"tokenizer": tokenizer, "template": get_template(TEMPLATE), "augment": "never"}
    preparer = SamplePreparer(
        **settings, policy=HDPolicy(tile=56, limit=9), limits=(("doc*", 30), ("d*", 2)), random_resolution=True
    )
    for name, widths in (
        ("docvqa", {7}),
        ("dvqa", {2}),
        ("captions", {3, 4}),
    ):  # of 120 x 60 px: 7 x 4 is the most at 30
        records.info = DatasetInfo(name=name, max_tiles=None)
        grids = {preparer(records[0], random.Random(seed)).grids[0] for seed in range(24)}
        assert {columns for columns, _ in grids} == widths, name
    records.info = DatasetInfo(name="captions", max_tiles=2)  # a data set's own limit bounds what is drawn
    assert {preparer(records[0], random.Random(seed)).grids for seed in range(9)} == {((2, 1),)}
    tiling = SamplePreparer(**settings, policy=POLICY, limits=(("doc*", 2),))
    counts = []
    for name in ("docvqa", "captions"):
        records.info = DatasetInfo(name=name)
        counts.append(len(tiling(records[1], random.Random(0)).tiles))
    assert counts == [2, 7]
    with pytest.raises(ConfigError, match="random_resolution draws global and local views; a TilingPolicy has none"):
        SamplePreparer(**settings, policy=POLICY, random_resolution=True)
    with pytest.raises(ConfigError, match=r"limit 0 for data sets 'doc\*' under a TilingPolicy; expected at least 1"):
        SamplePreparer(**settings, policy=POLICY, limits=(("doc*", 0),))


def test_packs_of_hd_pictures_keep_their_limit_and_resume(tokenizer, records):
    preparer = SamplePreparer(tokenizer=tokenizer, template=get_template(TEMPLATE), policy=HDPolicy(tile=56, limit=3))
    data = [Part(name=str(k), records=Only(records, k)) for k in range(3)]

    def loader(tiles):
        return Loader(LoaderConfig(limits=PackLimits(tokens=2000, tiles=tiles, open_bins=2)), data, preparer)

    whole = list(itertools.islice(loader(10), 8))
    for pack, _ in whole:
        assert 0 < len(pack.tiles) + len(pack.grids) <= 10
    for cut in (0, 4):
        resumed = loader(10).resume(json.loads(json.dumps(whole[cut].state)))
        rest = [shown(pack) for pack, _ in itertools.islice(resumed, 7 - cut)]
        assert rest == [shown(pack) for pack, _ in whole[cut + 1 :]]
    with pytest.raises(RecordError, match="has 7 tiles, a pack holds 6"):
        list(itertools.islice(loader(6), 8))


def test_preparation_depends_on_the_random_numbers_only(tokenizer, records):
    preparer = SamplePreparer(tokenizer=tokenizer, template=get_template(TEMPLATE), policy=POLICY)
    sent = pickle.loads(pickle.dumps(preparer))
    for index in (0, 3):
        first, second = (p(records[index], random.Random(5)) for p in (preparer, sent))
        np.testing.assert_array_equal(first.ids, second.ids)
        np.testing.assert_array_equal(first.tiles, second.tiles)
    pixels = {preparer(records[0], random.Random(seed)).tiles.tobytes() for seed in range(3)}
    assert len(pixels) > 1  # the data set asks for augmentation
    plain = SamplePreparer(tokenizer=tokenizer, template=get_template(TEMPLATE), policy=POLICY, augment="never")
    assert len({plain(records[0], random.Random(seed)).tiles.tobytes() for seed in range(3)}) == 1


def test_a_data_set_has_its_own_template_and_tile_limit(tokenizer, records):
    preparer = SamplePreparer(tokenizer=tokenizer, template=get_template(TEMPLATE), policy=POLICY)
    texts = []
    for template in ("internvl2_5", "internlm2-chat"):
        records.info = DatasetInfo(name="mixed", max_tiles=1, template=template)
        document = preparer(records[0], random.Random(0))
        assert len(document.tiles) == 1
        texts.append(tokenizer.decode(document.ids, skip_special=False))
    assert ["<|im_end|>\n<|im_start|>" in text for text in texts] == [True, False]
    square = SamplePreparer(tokenizer=tokenizer, template=get_template(TEMPLATE), policy=SquarePolicy(tile=56))
    assert len(square(records[1], random.Random(0)).tiles) == 2
    records.info = DatasetInfo(name="mixed", template="phi3-chat")
    with pytest.raises(
        ConfigError, match=r"'phi3-chat' writes <\|system\|>, <\|user\|>, .* which this vocabulary of \d+ "
    ):
        preparer(records[0], random.Random(0))


def test_bad_samples_are_named_with_their_place(tokenizer, records, tmp_path):
    preparer = SamplePreparer(tokenizer=tokenizer, template=get_template(TEMPLATE), policy=POLICY)
    (tmp_path / "tall.jpg").write_bytes(picture(60, 180)[:300])
    found = {}
    for index in range(len(records)):
        limits = PackLimits(tokens=2000, tiles=40)
        loader = Loader(LoaderConfig(epochs=1, limits=limits), [Part(name="x", records=Only(records, index))], preparer)
        try:
            assert len(list(loader)) == 1
        except RecordError as error:
            found[index] = str(error)
    assert sorted(found) == [1, 4, 5]
    for index, words in (
        (1, "tall.jpg.*truncated|tall.jpg.*damaged"),
        (4, "gone.jpg.*does not exist"),
        (5, "no answer text"),
    ):
        identity = json.loads(records.path.read_text().splitlines()[index])["id"]
        assert found[index].startswith(f"{records.path}:{index + 1}: sample 'mixed#{identity}': ")
        assert re.search(words, found[index])


def test_pictures_inside_shards(tokenizer, tmp_path):
    with ShardWriter(tmp_path / "tars") as writer:
        writer.write("good", {"png": picture(form="PNG"), "txt": "noise"})
        writer.write("bad", {"png": picture(form="PNG")[:100], "txt": "noise"})
    records = TarRecords(writer.paths)
    preparer = SamplePreparer(tokenizer=tokenizer, template=get_template(TEMPLATE), policy=POLICY)
    assert len(preparer(records[0], random.Random(0)).tiles) == 3
    with pytest.raises(VedereError, match=r"shard-000000.tar:bad.png: "):
        preparer(records[1], random.Random(0))


def test_impossible_preparers(tokenizer):
    template = get_template(TEMPLATE)
    with pytest.raises(ConfigError, match="1 <= least <= most"):
        SamplePreparer(tokenizer=tokenizer, template=template, policy=POLICY, frames=(4, 2))
