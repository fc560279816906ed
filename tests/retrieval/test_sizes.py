import dataclasses
import json

from watchnext.retrieval.sizes import RetrievalSizes


def with_facts(dataset, **facts):
    return dataclasses.replace(dataset, artifact=dataclasses.replace(dataset.artifact, facts=dataset.facts | facts))


def test_sizes_are_read_off_the_dataset(small_dataset):
    sizes = RetrievalSizes.of(small_dataset)
    # 100 videos, 3 genders, 6 regions, 3 devices, each beside "unknown"; age is the one number; a part of 20 days.
    assert sizes.num_videos == 101
    assert sizes.num_search_tokens > 1
    assert sizes.user_categories == (4, 7, 4)
    assert sizes.num_user_values == 1
    assert sizes.has_impressions
    assert 10 < sizes.training_days < 20


def test_sizes_of_what_is_known_of_videos_hold_all_their_rows(small_dataset):
    sizes, videos = RetrievalSizes.of(small_dataset), small_dataset.videos
    assert sizes.num_channels == videos.channel_row.max() + 1 > 1
    assert sizes.num_tags == videos.tag_rows.max() + 1 > 1
    assert sizes.num_title_tokens >= videos.title_rows.max() + 1 > 1
    assert [name for name, _ in sizes.video_categories] == small_dataset.video_categories
    for place, (_, size) in enumerate(sizes.video_categories):
        assert size == videos.categorical[:, place].max() + 1
    assert sizes.num_video_values == videos.continuous.shape[1]


def test_a_dataset_without_searches_has_no_search_tokens(small_dataset):
    assert RetrievalSizes.of(with_facts(small_dataset, num_searches=0)).num_search_tokens == 0


def test_a_log_of_one_second_has_some_training_time(small_dataset):
    moment = small_dataset.facts["log_start"]
    assert RetrievalSizes.of(with_facts(small_dataset, test_start=moment)).training_days > 0


def test_sizes_survive_being_written_as_json(small_dataset):
    sizes = RetrievalSizes.of(small_dataset)
    written = json.loads(json.dumps(dataclasses.asdict(sizes)))
    assert RetrievalSizes.from_facts(written) == sizes
    assert hash(RetrievalSizes.from_facts(written)) == hash(sizes)  # tuples all through
