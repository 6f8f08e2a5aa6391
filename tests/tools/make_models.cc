#include <iostream>

#include "formats/base/error.h"
#include "tests/formats/random_model.h"

// quern_make_models OUT_DIR: a random checkpoint for each configuration of tests/data/random-models, in OUT_DIR/NAME.

int main(int argc, char** argv) {
  namespace fs = std::filesystem;
  if (argc != 2) {
    std::cerr << "usage: quern_make_models OUT_DIR\n";
    return 2;
  }
  try {
    for (const auto& entry : fs::directory_iterator(fs::path(QUERN_TEST_DATA) / "random-models")) {
      if (entry.path().extension() != ".json") continue;
      const fs::path folder = fs::path(argv[1]) / entry.path().stem();
      quern::test::write_random_model(entry.path(), fs::path(QUERN_TEST_DATA) / "models", folder);
      std::cout << folder.string() << "\n";
    }
  } catch (const quern::Error& e) {
    std::cerr << "quern_make_models: " << e.what() << "\n";
    return 3;
  }
}
