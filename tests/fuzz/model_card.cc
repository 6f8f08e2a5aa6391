#include "formats/arch/model_card.h"

#include "formats/arch/model_name.h"
#include "tests/fuzz/fuzz.h"

// README front matter, and the model names in it.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto card = quern::ModelCard::parse(quern::test::input_text(data, size));
  for (const char* key : {"license", "tags", "base_model"}) {
    for (const std::string& item : card.list(key)) {
      quern::parse_model_name(item, 7'000'000'000);
      quern::title_of(item);
    }
  }
  return 0;
}
