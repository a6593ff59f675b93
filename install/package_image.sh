#!/bin/sh
# Makes the image of install/container/Dockerfile of static binaries that are there already, with docker, podman or buildah.
install=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=lib/common.sh
. "$install/lib/common.sh"

usage() {
  cat <<'USAGE'
Usage: install/package_image.sh ARCHITECTURE=FOLDER... [--tag NAME] [--context FOLDER]

  ARCHITECTURE=FOLDER  amd64, arm64 or arm, and where its static dair and host-worker are; with several, and docker, an image
                       for all of them is made (docker buildx)
  --tag NAME           what the image is called [default: dair:latest]
  --context FOLDER     only lay out what an image is built of there, in a folder that is not there yet

ENGINE names the program that builds [default: docker, podman or buildah, the first that is there].

Example:
  install/package_image.sh amd64=target/x86_64-unknown-linux-musl/dist
USAGE
}

repo=$(cd "$install/.." && pwd)
tag=dair:latest
context=
sources=
platforms=
architecture=
while [ $# -gt 0 ]; do
  case $1 in
  -h | --help) usage && exit ;;
  --tag | --context)
    [ $# -ge 2 ] || misuse "$1 needs a value"
    [ -n "$2" ] || misuse "$1 is empty"
    case $1 in --tag) tag=$2 ;; --context) context=$2 ;; esac
    shift 2
    ;;
  amd64=?* | arm64=?* | arm=?*)
    architecture=${1%%=*}
    for file in dair host-worker; do
      [ -f "${1#*=}/$file" ] || fail "no $file in ${1#*=}: build it first"
    done
    sources="$sources$architecture=$(cd "${1#*=}" && pwd)
"
    platforms=${platforms:+$platforms,}linux/$architecture
    shift
    ;;
  *) misuse "unknown argument $1; binaries are named as in amd64=FOLDER, arm64=FOLDER or arm=FOLDER" ;;
  esac
done
[ -n "$sources" ] || misuse "no binaries named, as in amd64=FOLDER"

if [ -n "$context" ]; then
  is_built=
  mkdir "$context" || fail "--context takes a folder that is not there yet"
else
  make_work
  context=$work
  is_built=yes
fi
mkdir "$context/cache"
cp "$repo/LICENSE" "$repo/install/container/Dockerfile" "$context"
printf '%s' "$sources" | while IFS='=' read -r name folder; do
  mkdir -p "$context/$name"
  cp "$folder/dair" "$folder/host-worker" "$context/$name"
done
[ -n "$is_built" ] || exit 0

engine=${ENGINE:-$(command -v docker || command -v podman || command -v buildah || true)}
[ -n "$engine" ] || fail "neither docker nor podman nor buildah is here"
case $platforms in
*,*) "$engine" buildx build --platform "$platforms" --tag "$tag" "$context" ;;
*) "$engine" build ${format:+"$format"} --build-arg "TARGETARCH=$architecture" --platform "$platforms" --tag "$tag" "$context" ;;
esac
