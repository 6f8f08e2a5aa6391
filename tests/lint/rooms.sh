#!/usr/bin/env bash
# Holds the rooms of docs/architecture.md: every folder of code is a row of its table, every include of another room is an arrow that the
# row states, and every stated arrow is used. Arrows between rooms, and includes between modules (a header and its sources), must not go
# round in circles. Other libraries and programs include only the headers that a library names as its doors (DOORS in its CMakeLists.txt).
# Run from the repository root.
set -euo pipefail
readonly table=docs/architecture.md
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0
complain() { echo "$1"; bad=1; }

# "room arrow" for every arrow of the table; a room without arrows as "room -".
awk -F'|' '/^\| `[a-z]+\// {
  room = $2; gsub(/[` ]|\/$/, "", room); sub(/\/$/, "", room)
  n = split($4, names, "`")
  if (n < 2) print room, "-"
  for (i = 2; i <= n; i += 2) print room, names[i]
}' "$table" | sort -u >"$work/stated"
cut -d' ' -f1 "$work/stated" | sort -u >"$work/rooms"
[[ -s "$work/rooms" ]] || { echo "$table has no table of rooms"; exit 1; }

# "file included" for every include of ours.
folders=$(cut -d/ -f1 "$work/rooms" | sort -u)
# shellcheck disable=SC2086
find $folders -type f \( -name '*.cc' -o -name '*.h' -o -name '*.inc' \) | sort | xargs awk '
  /^#include "/ { name = $2; gsub(/"/, "", name); if (name ~ /\// && name !~ /^hwy\//) print FILENAME, name }' >"$work/includes"

# Rooms: the arrows that the includes make.
awk '{ from = $1; to = $2; sub(/\/[^\/]*$/, "", from); sub(/\/[^\/]*$/, "", to); if (from != to) print from, to, $1, $2 }' "$work/includes" >"$work/used"
while read -r room; do
  grep -qx "$room" "$work/rooms" || complain "$room is no row of the table in $table"
done < <(cut -d' ' -f1,2 "$work/used" | tr ' ' '\n' | sort -u)
while read -r from to file included; do
  grep -qx "$from $to" "$work/stated" || complain "$file includes $included: $table has no arrow from $from to $to"
done < <(sort -u -k1,2 "$work/used")
while read -r from to; do
  [[ "$to" == - ]] || grep -q "^$from $to " "$work/used" || complain "$table has an arrow from $from to $to that nothing uses"
done <"$work/stated"

# Doors. A library is a folder with a CMakeLists.txt that makes one.
grep -rl --include=CMakeLists.txt '^quern_library(' $folders | xargs -n 1 dirname | sort -r >"$work/libraries"
library_of() {
  local library
  while read -r library; do
    [[ "$1" == "$library"/* ]] && { echo "$library"; return; }
  done <"$work/libraries"
  echo "${1%%/*}"
}
while read -r library; do
  awk '/^quern_library\(/ { inside = 1 } inside { for (i = 1; i <= NF; ++i) if ($i ~ /\.h\)?$/) { sub(/\)$/, "", $i); print $i } } /\)$/ { inside = 0 }' \
    "$library/CMakeLists.txt"
done <"$work/libraries" | sort >"$work/doors"
cut -d' ' -f1 "$work/includes" | sort -u | while read -r file; do echo "$file $(library_of "$file")"; done >"$work/files"
cut -d' ' -f2 "$work/includes" | sort -u | while read -r header; do echo "$header $(library_of "$header")"; done >"$work/headers"
awk 'FILENAME ~ /files$/ { from[$1] = $2; next } FILENAME ~ /headers$/ { to[$1] = $2; next }
     from[$1] != to[$2] { print $2, $1 }' "$work/files" "$work/headers" "$work/includes" | sort -u >"$work/crossings"
while read -r header file; do
  grep -qx "$header" "$work/doors" || complain "$file includes $header, which is no door of $(library_of "$header")"
done < <(sort -u -k1,1 "$work/crossings")

# Circles. A module is a header with its sources: x.h, x.cc, x_simd.cc.
awk '{ print $1, $2 }' "$work/used" | sort -u | tsort >/dev/null 2>"$work/circle" || complain "rooms include each other: $(tr '\n' ' ' <"$work/circle")"
awk '{ for (i = 1; i <= 2; ++i) sub(/(_simd|-inl)?\.(cc|h|inc)$/, "", $i); if ($1 != $2) print $1, $2 }' "$work/includes" | sort -u |
  tsort >/dev/null 2>"$work/circle" || complain "modules include each other: $(tr '\n' ' ' <"$work/circle")"
exit "$bad"
