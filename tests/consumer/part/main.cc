// Prints the names of a GGUF file's tensors.
//
//   part FILE

#include <iostream>

#include <quern/formats/base/error.h>
#include <quern/formats/base/file.h>
#include <quern/formats/gguf/gguf.h>

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  try {
    const quern::gguf::Header header = quern::gguf::read_header(quern::InputFile(argv[1]));
    for (const auto& tensor : header.tensors) std::cout << tensor.name << '\n';
  } catch (const quern::Error& error) {
    std::cerr << error.what() << '\n';
    return 3;
  }
}
