# alignzoo in a container, for the CPU or for CUDA:
#
#   docker build -t alignzoo .
#   docker build -t alignzoo:cuda --build-arg DEVICE=cuda .
#   docker run --rm -v "$PWD/runs:/zoo/runs" alignzoo run aligndistil_onpolicy
#   docker run --rm --gpus all -v "$PWD/runs:/zoo/runs" alignzoo:cuda run RECIPE
#
# The wheels for CUDA bring CUDA with them; the machine needs its driver and the container toolkit.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim

# cpu or cuda: which build of torch.
ARG DEVICE=cpu
# Of pyproject.toml, separated by commas.
ARG EXTRAS=eval,lora,plot

WORKDIR /src
COPY pyproject.toml constraints.txt README.md CHANGELOG.md LICENSE recipe.schema.json ./
COPY alignzoo alignzoo
COPY plugins plugins
COPY recipes recipes
RUN case "$DEVICE" in \
      cpu) index=https://download.pytorch.org/whl/cpu ;; \
      cuda) index=https://pypi.org/simple ;; \
      *) echo "DEVICE is cpu or cuda, not '$DEVICE'" >&2; exit 2 ;; \
    esac && \
    version=$(sed -n 's/^torch==//p' constraints.txt) && \
    pip install --no-cache-dir --index-url "$index" "torch==$version" && \
    pip install --no-cache-dir --constraint constraints.txt ".[$EXTRAS]"

RUN useradd --home-dir /zoo --create-home zoo && mkdir -p /zoo/runs /zoo/cache && chown -R zoo /zoo
USER zoo
WORKDIR /zoo
ENV ALIGNZOO_CACHE=/zoo/cache OMP_WAIT_POLICY=PASSIVE
VOLUME ["/zoo/runs"]
ENTRYPOINT ["alignzoo"]
CMD ["--help"]
