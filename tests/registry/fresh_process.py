"""What a consumer does who has only the registry's address. Run with `-c` from another folder."""

import base64
import json
import sys

import mlflow
import pandas as pd
from pycocotools import mask as coco

model = mlflow.pyfunc.load_model(f"models:/{sys.argv[1]}@champion")
asked = ["bright spot", "no such thing"]
with open("new.png", "rb") as handle:
    payload = handle.read()
text = base64.b64encode(payload).decode()
answers = model.predict(pd.DataFrame({"image": [payload, payload], "prompt": asked}))
assert answers == model.predict([{"image": "new.png", "prompt": one} for one in asked])
assert answers == model.predict({"image": [text, text], "prompt": asked})
assert answers == model.predict({"image": text, "prompt": asked})

import threshold_engine  # noqa: E402

import registry.predictor  # noqa: E402

answer = {
    "area": int(coco.decode(answers[0]["rle"]).sum()),
    "size": answers[0]["rle"]["size"],
    "score": [one["score"] for one in answers],
    "box": answers[0]["instances"][0]["bbox_xyxy"],
    "nothing": len(answers[1]["instances"]),
    "code": [registry.predictor.__file__, threshold_engine.__file__],
    "inputs": [one.name for one in model.metadata.signature.inputs],
    "requirements": mlflow.pyfunc.get_model_dependencies(f"models:/{sys.argv[1]}@champion"),
}
sys.stdout.write(json.dumps(answer) + "\n")
