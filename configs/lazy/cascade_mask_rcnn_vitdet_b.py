# Cascade Mask R-CNN with ViTDet-B: Detectron2's LazyConfig files of both are joined as its own project does it.
from detectron2 import model_zoo
from eventful_vitdet.modeling import use_eventful_vit

model = use_eventful_vit(model_zoo.get_config("common/models/mask_rcnn_vitdet.py").model)
heads = model_zoo.get_config("common/models/cascade_rcnn.py").model.roi_heads
for head in heads.box_heads:
    head.update(conv_dims=[256, 256, 256, 256], fc_dims=[1024], conv_norm="LN")
heads.mask_head.conv_norm = "LN"
model.roi_heads = heads
