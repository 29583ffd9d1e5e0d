// Package e2e tries the plugin against real parts, on one machine and without
// Docker: kubectl, kube-apiserver and etcd built from their Go modules
// (hack/kube), and two OpenID providers that this project did not write, node
// oidc-provider and zitadel/oidc. Run it with
//
//	go test -C hack/e2e ./... -count=1 -v -timeout 20m
//
// The first run builds Kubernetes, about 8 minutes; after that it takes less
// than one. It needs Go and Node.js with npm. The test that approves in a
// browser needs Chromium (the environment variable CHROMIUM names the
// program): without it the test is skipped, or fails where CI=true. Older
// kubectls are tried where the machine has them.
//
// Not to be seen here: other providers, other systems than this one, and a
// kind cluster, of which only the configuration is checked.
package e2e
