#!/usr/bin/env bash
# make.sh QUERN: prints the manual page: quern.1.in with what QUERN says of its version, verbs and types, so that the page never lags behind.
set -euo pipefail
quern=$1 version=$("$1" --version)
while IFS= read -r line; do
  case $line in
    @VERBS@) "$quern" generate man ;;
    @TYPES@) "$quern" generate types ;;
    *) printf '%s\n' "${line//@VERSION@/$version}" ;;
  esac
done <"$(dirname "$0")/quern.1.in"
