// Uses one function of the installed libraries: prints the bits per weight of the type named on the command line.

#include <cstdio>

#include "formats/types/dtype.h"

int main(int argc, char** argv) {
  const auto dtype = argc == 2 ? quern::find_dtype_by_name(argv[1]) : std::nullopt;
  if (!dtype) return 2;
  std::printf("%.4f\n", quern::bits_per_weight(*dtype));
}
