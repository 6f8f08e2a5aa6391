#include "formats/arch/config.h"
#include "formats/arch/descriptor.h"
#include "formats/base/error.h"
#include "tests/fuzz/fuzz.h"

// config.json through everything that reads it before a tensor is looked at.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto config = quern::ModelConfig::parse({reinterpret_cast<const char*>(data), size});
    const quern::ArchDescriptor& arch = quern::find_arch(config);
    arch.check(config);
    for (bool mtp : {false, true}) {
      quern::Metadata metadata;
      arch.set_metadata(config, mtp, metadata);
      const quern::ArchRules rules =
          arch.rules(config, mtp, [mtp](std::string_view name) { return mtp && name.ends_with("_proj.weight"); });
      for (const quern::TensorRule& rule : rules.rules) QUERN_CHECK(!rule.name.empty() && rule.shape.rank() > 0);
    }
  } catch (const quern::Error& e) {
    if (e.kind() == quern::ErrorKind::kInternal) throw;
  }
  return 0;
}
