"""Detect objects in a video by an eventful YOLOS: python examples/yolos_detector.py VIDEO [MODEL]"""

import sys

import av
import torch
from eventful_vit import TopFraction, count_operations, make_eventful
from transformers import AutoImageProcessor, YolosForObjectDetection

video, name = (*sys.argv[1:], "hustvl/yolos-small")[:2]
prepare = AutoImageProcessor.from_pretrained(name)
detector = YolosForObjectDetection.from_pretrained(name).eval()
# Detection tokens change with every frame, so a budget has to have room for them.
detector.vit = make_eventful(detector.vit, policy=TopFraction(0.25))

with torch.inference_mode(), av.open(video) as container:
    for number, frame in enumerate(container.decode(video=0)):
        pixels = prepare(frame.to_ndarray(format="rgb24"), return_tensors="pt").pixel_values
        with count_operations(detector) as counts:
            outputs = detector(pixel_values=pixels)
        size = [(frame.height, frame.width)]
        (found,) = prepare.post_process_object_detection(outputs, threshold=0.5, target_sizes=size)
        print(f"frame {number}: {counts.total() / 1e9:.1f} GFlops")
        for score, label, box in zip(found["scores"], found["labels"], found["boxes"].tolist()):
            print(f"  {detector.config.id2label[int(label)]} {score:.2f} at {', '.join(f'{x:.0f}' for x in box)}")
