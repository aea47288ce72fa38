"""Which process runs which videos, and which of them run side by side. A video is never split."""

from __future__ import annotations

from .coco_vid import Video, group_by_video


def shard_videos(frames: list[dict], shards: int, index: int) -> list[dict]:
    """The share of process `index` among `shards`: whole videos, chosen so that frame counts are about equal."""
    share = deal_videos(group_by_video(frames), shards)[index]
    return [frame for video in share for frame in video]


def deal_videos(videos: list[Video], hands: int) -> list[list[Video]]:
    """Deal videos to a number of hands: longest first, each to the hand with the fewest frames so far.

    In a hand they are in their original order.
    """
    loads = [0] * hands
    owners = [0] * len(videos)
    for i in sorted(range(len(videos)), key=lambda i: -len(videos[i])):
        owners[i] = loads.index(min(loads))
        loads[owners[i]] += len(videos[i])
    return [[video for video, owner in zip(videos, owners) if owner == hand] for hand in range(hands)]


def schedule_streams(videos: list[Video], streams: int, mix_sizes: bool) -> list[list[list[Video]]]:
    """Groups of videos that run one after the other; of each, the videos of every position of the batch.

    A position's videos have together at least as many frames as those of the next position, so that a batch loses its
    last position first. In a group frames are of one size unless sizes may be mixed; a video with frames of
    several sizes then has a group of its own.
    """
    if streams == 1:
        return [[videos]] if videos else []
    groups: dict[object, list[Video]] = {}
    for video in videos:
        sizes = {(frame["height"], frame["width"]) for frame in video}
        alone = (video[0]["video_id"],) if len(sizes) > 1 else ()
        key = () if mix_sizes else (min(sizes), *alone)
        groups.setdefault(key, []).append(video)
    return [_positions(group, streams) for group in groups.values()]


def _positions(videos: list[Video], streams: int) -> list[list[Video]]:
    hands = [hand for hand in deal_videos(videos, streams) if hand]
    return sorted(hands, key=lambda hand: -sum(map(len, hand)))
