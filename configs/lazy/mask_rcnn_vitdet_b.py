# Detectron2's own LazyConfig of Mask R-CNN with ViTDet-B; the last line makes it a detector for video. It needs the
# real Detectron2.
#
#     python tools/train_net.py --lazy configs/lazy/mask_rcnn_vitdet_b.py --eval-only --test-json set.json \
#         MODEL.WEIGHTS model_final_61ccd1.pkl
from detectron2 import model_zoo
from eventful_vitdet.modeling import use_eventful_vit

model = use_eventful_vit(model_zoo.get_config("common/models/mask_rcnn_vitdet.py").model)
