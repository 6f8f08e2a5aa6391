#include "formats/arch/config.h"
#include "formats/arch/descriptor.h"
#include "tests/fuzz/fuzz.h"

// config.json through everything that reads it before a tensor is looked at.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  quern::test::accept_errors([&] {
    const auto config = quern::ModelConfig::parse(quern::test::input_text(data, size));
    const quern::ArchDescriptor& arch = quern::find_arch(config);
    arch.check(config);
    for (bool mtp : {false, true}) {
      quern::Metadata metadata;
      arch.set_metadata(config, mtp, metadata);
      const quern::ArchRules rules =
          arch.rules(config, mtp, [mtp](std::string_view name) { return mtp && name.ends_with("_proj.weight"); });
      for (const quern::TensorRule& rule : rules.rules) QUERN_CHECK(!rule.name.empty() && rule.shape.rank() > 0);
    }
  });
  return 0;
}
