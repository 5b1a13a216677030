#!/bin/sh
# First steps over HTTP, with curl:
#
#   sh docs/examples/http/first_steps.sh [http://127.0.0.1:8080]
#
# KRITA_ADMIN_TOKEN in the environment is used, if the cluster asks for a token.
set -eu

base=${1:-http://127.0.0.1:8080}/v1/kv
greeting=$base/example:greeting
visits=$base/example:visits

work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

# request METHOD URL [ARGUMENTS OF CURL]: the status into $status, the body into
# $work/body, the entity tag into $tag.
request() {
    method=$1 url=$2
    shift 2
    status=$(curl -sS -X "$method" "$url" "$@" -o "$work/body" -D "$work/head" -w '%{http_code}' \
        ${KRITA_ADMIN_TOKEN:+-H "Authorization: Bearer $KRITA_ADMIN_TOKEN"})
    tag=$(tr -d '\r' <"$work/head" | sed -n 's/^ETag: //p')
}

# Whatever was not foreseen: the body says what it is.
fail() {
    echo "status $status: $(cat "$work/body")" >&2
    exit 1
}

request PUT "$greeting" --data-binary hello -H "Content-Type: text/plain"
[ "$status" = 200 ] || [ "$status" = 201 ] || fail
first=$tag

request GET "$greeting"
[ "$status" = 200 ] || fail
echo "example:greeting is $(cat "$work/body")"

# Only what has been read is replaced: whoever was faster wins.
request PUT "$greeting" --data-binary "hello again" -H "If-Match: $first"
[ "$status" = 200 ] || fail
request PUT "$greeting" --data-binary "too late" -H "If-Match: $first"
[ "$status" = 412 ] || fail
echo "refused, not_applied: $(cat "$work/body")"

request DELETE "$greeting"
[ "$status" = 204 ] || fail
request GET "$greeting"
[ "$status" = 404 ] || fail
echo "example:greeting is None"

# Add one to a number that others add to as well. An entity tag is the condition; for a
# key that is absent it is If-None-Match: *.
add() {
    while :; do
        request GET "$visits"
        case $status in
        200) number=$(cat "$work/body") condition="If-Match: $tag" ;;
        404) number=0 condition="If-None-Match: *" ;;
        *) fail ;;
        esac
        number=$((number + 1))
        request PUT "$visits" --data-binary "$number" -H "$condition"
        case $status in
        200 | 201) return ;;
        412) ;; # somebody else was faster: look again
        *) fail ;;
        esac
    done
}

request DELETE "$visits"
for _ in 1 2 3 4 5 6 7 8 9 10; do
    add
done
echo "$number visits"
