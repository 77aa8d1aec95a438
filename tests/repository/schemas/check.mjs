// Kubernetes documents on stdin, a JSON list. Prints a line for each that is wrong.
import { readFileSync } from "node:fs";
import { ScaledObject, TriggerAuthentication } from "@kubernetes-models/keda/keda.sh/v1alpha1";
import { Deployment } from "kubernetes-models/apps/v1";
import { NetworkPolicy } from "kubernetes-models/networking.k8s.io/v1";

const MODELS = { Deployment, NetworkPolicy, ScaledObject, TriggerAuthentication };

for (const document of JSON.parse(readFileSync(0, "utf8"))) {
  try {
    new MODELS[document.kind](document).validate();
  } catch (error) {
    console.log(`${document.kind}: ${error.message.replaceAll("\n", " ")}`);
  }
}
