// encode_with_folder FOLDER VOCAB_SIZE TEXT_FILE: the ids of a text, one per line, by the tokenizer in a folder that has no model.
// Special tokens are recognised and none are added.

#include <cstdlib>
#include <iostream>

#include "formats/base/error.h"
#include "formats/base/file.h"
#include "formats/tokenizer/import.h"
#include "runtime/tokenizer/tokenizer.h"

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  try {
    quern::Metadata metadata;
    std::vector<std::string> notes;
    quern::set_tokenizer_metadata(std::filesystem::path(argv[1]), {.vocab_size = std::strtoll(argv[2], nullptr, 10)}, metadata, notes);
    const std::string text = quern::read_text_file(argv[3], uint64_t{1} << 30);
    for (const int32_t id : quern::Tokenizer(metadata).encode(text, false, true)) std::cout << id << '\n';
  } catch (const quern::Error& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
