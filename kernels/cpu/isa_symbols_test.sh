#!/bin/bash
# A file compiled for AVX2, AVX-512 or AMX may define one symbol that the linker sees:
# its table of kernels. Any other (an inline function of a header, a template)
# could replace the portable copy and stop older processors.
set -euo pipefail
failed=0
for archive in "$@"; do
  name="$(basename "${archive}" .a)"
  extra="$(nm --defined-only --extern-only "${archive}" 2>/dev/null |
    awk 'NF == 3 {print $3}' |
    grep -vE 'k(Linear|Float|Vector|Attention|Peak)Kernels(Avx2|AvxVnni|Avx512|Zen|Amx)E|__odr_asan' || true)"
  if [[ -n "${extra}" ]]; then
    echo "${name} defines more than its table of kernels:"
    echo "${extra}"
    failed=1
  fi
done
if [[ "$#" -ne 14 ]]; then
  echo "expected 14 archives, got $#"
  failed=1
fi
exit "${failed}"
