# The default target is the CPU runtime:     docker build -t magrt .
# On an NVIDIA GPU:                          docker build -t magrt:gpu --target gpu .
# Scan:   mkdir -p out
#         docker run --rm --network none --user "$(id -u):$(id -g)" \
#           -v "$PWD/photos:/in:ro" -v "$PWD/out:/out" magrt scan /in --out /out

FROM nvcr.io/nvidia/tensorrt:25.03-py3 AS gpu
# TensorRT and CUDA come with the image; pycuda compiles against them. Not built by CI: docs/deployment.md says what was.
WORKDIR /opt/magrt
COPY pyproject.toml README.md LICENSE ./
COPY mag_rt mag_rt
COPY mag_train mag_train
COPY kernels/magrt.ptx kernels/
RUN pip install --no-cache-dir . pycuda
RUN apt-get update && apt-get install --no-install-recommends -y libgl1 libglib2.0-0 && rm -rf /var/lib/apt/lists/*
# Engines: keep them with `-v magrt-engines:/cache`. Whoever the container runs as may write there.
RUN install -d -m 1777 /cache
ENV XDG_CACHE_HOME=/cache
USER nobody
ENTRYPOINT ["magrt"]

FROM python:3.12-slim AS cpu
# opencv-python is linked against these, although nothing here opens a window.
RUN apt-get update && apt-get install --no-install-recommends -y libgl1 libglib2.0-0 && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/magrt
COPY pyproject.toml README.md LICENSE ./
COPY mag_rt mag_rt
COPY mag_train mag_train
COPY kernels/magrt.ptx kernels/
RUN pip install --no-cache-dir .
USER nobody
ENTRYPOINT ["magrt"]
