#!/bin/sh
# What this project measures on a GPU, in at most 13 minutes: SE's cost beside timm's, and the paired study.
#
#     benchmarks/on_a_gpu.sh FOLDER [speed] [study]      both by default, into FOLDER
#
# It needs JAX, PyTorch, timm, and Keras, but neither TensorFlow nor an installation of se_keras. Everything is written
# as it is measured, and the same command continues what was cut. Settings, as environment variables:
#
#     PYTHON   Python with JAX and Keras            MINUTES  for each of the two (default: 6)
#     PEERS    Python with PyTorch and timm         EPOCHS   of the study (default: 35)
#     DATA     npz files of CIFAR-10, in order      SEEDS    of the study (default: "0 1 2 3 4")
#     TOGETHER seeds trained at once (default: 1)   VARIANTS of the study (default: "plain se_r4", as bundled)
#     SPEED    further options of gpu.py            STUDY    further options of study_pairs.py
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
folder=${1:?Usage: on_a_gpu.sh FOLDER [speed] [study]}
shift
steps=${*:-speed study}
set --
python=${PYTHON:-python3}
minutes=${MINUTES:-6}
mkdir -p "$folder"

export KERAS_BACKEND=jax PYTHONUNBUFFERED=1 XLA_PYTHON_CLIENT_PREALLOCATE=false
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$folder/compiled}"
export TORCHINDUCTOR_CACHE_DIR="${TORCHINDUCTOR_CACHE_DIR:-$folder/compiled/torch}"

study() {
    # shellcheck disable=SC2086
    "$python" "$root/pretrained/study_pairs.py" --data $DATA --models se_resnet20 --variants "$1" \
        --seeds ${SEEDS:-0 1 2 3 4} --together "${TOGETHER:-1}" --epochs "${EPOCHS:-35}" --minutes "$minutes" \
        --out "$folder/study-$1.json" --weights "$folder/weights" ${STUDY:-} >"$folder/study-$1.log" 2>&1
}

for step in $steps; do
    case $step in
    speed)
        # What was measured before on the same GPU with the same packages is not measured again.
        [ -f "$folder/gpu.json" ] || cp "$here/results/gpu.json" "$folder/" 2>/dev/null
        # shellcheck disable=SC2086
        "$python" "$here/gpu.py" --minutes "$minutes" --peers "${PEERS:-$python}" --out "$folder/gpu.json" ${SPEED:-}
        ;;
    study)
        : "${DATA:?DATA must name the npz files of CIFAR-10}"
        mkdir -p "$folder/weights"
        for variant in ${VARIANTS:-plain se_r4}; do
            study "$variant" &  # side by side: one computes while the other compiles
        done
        wait
        for variant in ${VARIANTS:-plain se_r4}; do
            tail -n 3 "$folder/study-$variant.log"
            [ ! -f "$folder/study-$variant.json" ] || set -- "$@" "$folder/study-$variant.json"
        done
        [ $# = 0 ] ||
            "$python" "$root/pretrained/study_pairs.py" --join "$@" --out "$folder/study-pairs.json"
        ;;
    *)
        echo "The steps are speed and study; received: $step" >&2
        exit 2
        ;;
    esac
done
