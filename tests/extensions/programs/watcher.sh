#!/bin/sh
# An external extension with curl alone: it tells the collector of each event, and ends with the last one.
API="http://$AWS_LAMBDA_RUNTIME_API/2020-01-01/extension"
NAME=$(basename "$0")
tell() { curl -sS -X POST "$COLLECTOR/$NAME/$1" --data-binary "$2" > /dev/null; }

curl -sS -D /tmp/head -o /tmp/introduction "$API/register" \
  -H "Lambda-Extension-Name: $NAME" -H "Lambda-Extension-Accept-Feature: accountId" \
  -d '{"events": ["INVOKE", "SHUTDOWN"]}'
IDENTIFIER=$(tr -d '\r' < /tmp/head | sed -n 's/^[Ll]ambda-[Ee]xtension-[Ii]dentifier: //p')
tell registered "$(cat /tmp/introduction)"
while true; do
  EVENT=$(curl -sS "$API/event/next" -H "Lambda-Extension-Identifier: $IDENTIFIER") || exit 1
  echo "watched $EVENT"
  tell event "$EVENT"
  case $EVENT in *SHUTDOWN*) exit 0 ;; esac
done
