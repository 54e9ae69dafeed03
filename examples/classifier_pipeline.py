"""A classifier in a scikit-learn pipeline: scaled, searched over, saved, and handed to others.

python examples/classifier_pipeline.py [FOLDER, by default runs/examples]
"""

import sys
from pathlib import Path

from matplotlib.figure import Figure
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from altmin_dask import AltMinClassifier


def main(folder: Path) -> None:
    data = load_breast_cancer(as_frame=True)
    names = data.target_names[data.target]
    train, test, train_names, test_names = train_test_split(data.data, names, random_state=0, stratify=names)

    print("1. It is an estimator like any other: three values of ridge, three folds each.")
    pipeline = make_pipeline(StandardScaler(), AltMinClassifier(random_state=0))
    search = GridSearchCV(pipeline, {"altminclassifier__ridge": [0.1, 1.0, 10.0]}, cv=3)
    search.fit(train, train_names)
    print(f"   ridge = {search.best_params_['altminclassifier__ridge']} is best in cross-validation")
    print(f"   accuracy on {len(test)} held-out samples: {search.score(test, test_names):.3f}")

    print("2. It can be saved without pickle, and exported for a program that knows nothing of this one.")
    classifier = search.best_estimator_[-1]
    classifier.save(folder / "classifier", overwrite=True)
    again = AltMinClassifier.load(folder / "classifier")
    scaled = search.best_estimator_[:-1].transform(test)
    assert (again.predict(scaled) == search.predict(test)).all()
    print(f"   saved: {folder / 'classifier'}")
    try:
        classifier.to_onnx(folder / "classifier.onnx")
        print(f"   exported: {folder / 'classifier.onnx'}")
    except FileNotFoundError as error:  # the package onnx is optional
        print(f"   {error}")

    print("3. What it took, and what it gets wrong.")
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([record["sweep"] for record in classifier.history_], classifier.loss_curve_, "o-")
    left.set(yscale="log", xlabel="sweeps", ylabel="loss of the training samples")
    ConfusionMatrixDisplay.from_predictions(test_names, search.predict(test), ax=right, colorbar=False)
    figure.savefig(folder / "classifier_pipeline.png", dpi=120)
    print(f"   drawn: {folder / 'classifier_pipeline.png'}")


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples")
    folder.mkdir(parents=True, exist_ok=True)
    main(folder)
