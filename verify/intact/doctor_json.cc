#include <nlohmann/json.hpp>

#include "verify/intact/doctor.h"

namespace quern {

using nlohmann::ordered_json;

const char* name_of(Severity severity) {
  return severity == Severity::kBroken ? "broken" : severity == Severity::kWarning ? "warning" : "note";
}

std::string diagnosis_to_json(const Diagnosis& diagnosis) {
  ordered_json symptoms = ordered_json::array();
  for (const Symptom& symptom : diagnosis.symptoms) {
    symptoms.push_back({{"severity", name_of(symptom.severity)}, {"where", symptom.where}, {"message", symptom.message}});
  }
  const ordered_json root = {{"schema", "quern.doctor/1"}, {"broken", diagnosis.broken()},   {"symptoms", symptoms},
                             {"files", diagnosis.n_files}, {"tensors", diagnosis.n_tensors}, {"bytes_read", diagnosis.bytes_read}};
  return root.dump(1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace quern
