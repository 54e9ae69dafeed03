"""A classifier in a scikit-learn pipeline: scaled, searched over, saved, and handed to others.

python examples/classifier_pipeline.py [FOLDER]
"""

import sys
import tempfile
from pathlib import Path

from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from altmin_dask import AltMinClassifier


def main(folder: Path) -> None:
    data = load_breast_cancer(as_frame=True)
    names = data.target_names[data.target]
    train, test, train_names, test_names = train_test_split(data.data, names, random_state=0, stratify=names)

    # 1. It is an estimator like any other.
    pipeline = make_pipeline(StandardScaler(), AltMinClassifier(max_sweeps=15, random_state=0))
    search = GridSearchCV(pipeline, {"altminclassifier__ridge": [0.1, 1.0, 10.0]}, cv=3)
    search.fit(train, train_names)
    print(f"ridge = {search.best_params_['altminclassifier__ridge']} is best in cross-validation")
    print(f"accuracy on {len(test)} held-out samples: {search.score(test, test_names):.3f}")

    # 2. It can be saved without pickle, and exported for a program that knows nothing of this one.
    classifier = search.best_estimator_[-1]
    classifier.save(folder / "classifier", overwrite=True)
    again = AltMinClassifier.load(folder / "classifier")
    scaled = search.best_estimator_[:-1].transform(test)
    assert (again.predict(scaled) == search.predict(test)).all()
    print(f"saved as {folder / 'classifier'}")
    try:
        classifier.to_onnx(folder / "classifier.onnx")
        print(f"exported as {folder / 'classifier.onnx'}")
    except FileNotFoundError as error:  # the package onnx is optional
        print(error)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="altmin-")))
