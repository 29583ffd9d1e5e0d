// The command imports is what the plugin's packages cost before it does
// anything.
package main

import _ "github.com/oidc-device/kubectl-oidc_device/internal/cli"

func main() {}
