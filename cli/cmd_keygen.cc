#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/cli.h"
#include "verify/records/signature.h"

namespace quern::cli {
namespace {

struct KeygenOptions {
  std::string path;
  bool json = false;
};

std::string to_json(const KeyFiles& files, const Ed25519Key& key) {
  const nlohmann::ordered_json root = {
      {"schema", "quern.key/1"}, {"id", key.id()}, {"private_key", files.private_pem.string()}, {"public_key", files.public_pem.string()}};
  return root.dump(1) + "\n";
}

int run_keygen(const KeygenOptions& options) {
  const KeyFiles files = key_files(options.path);
  for (const std::filesystem::path& file : {files.private_pem, files.public_pem}) {
    if (!std::filesystem::exists(std::filesystem::symlink_status(file))) continue;
    throw Error(ErrorKind::kUsage, "exists, and a key is never replaced; choose another name").file(file.string());
  }
  std::clog << "quern: writing " << printable(files.private_pem.string()) << " (keep it secret) and "
            << printable(files.public_pem.string()) << " (publish it)\n";
  const Ed25519Key key = write_new_key(files);
  std::cout << (options.json ? to_json(files, key) : "key id: " + key.id() + "\n");
  return 0;
}

}  // namespace

void add_keygen(CLI::App& app, Context& context) {
  const auto options = std::make_shared<KeygenOptions>();
  CLI::App* verb = app.add_subcommand("keygen", "Make a key pair to sign builds with");
  verb->group("Publish")->footer("quern keygen -o release.pem     (prints the id of the key)");
  verb->add_option("-o,--output", options->path, "private key; its public half: KEY.pub.pem")
      ->type_name("KEY.pem")
      ->required()
      ->group("Output");
  verb->add_flag("--json", options->json, "results as JSON on stdout")->group("Run");
  verb->callback([options, &context] { context.command = [options] { return run_keygen(*options); }; });
}

}  // namespace quern::cli
