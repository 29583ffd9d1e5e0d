package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api/v1"

	"github.com/oidc-device/kubectl-oidc_device/flow"
)

// takeOver reads the entry of kubectl oidc-login that --from-user names, and
// sets the flags that were not given. It gives the entry's environment, which
// mostly holds a proxy.
func (s *setup) takeOver(files []kubeconfigFile) (env []any, err error) {
	i, item := holder(files, "users", s.from)
	if i < 0 {
		return nil, &usageError{message: fmt.Sprintf("there is no user %s in the kubeconfig", s.from), hint: "kubectl config get-users"}
	}
	exec := execOf(item)
	args, ok := kubeloginArgs(exec)
	if !ok {
		return nil, &usageError{
			message: fmt.Sprintf("the user %s in %s does not run get-token of kubectl oidc-login (kubelogin)", s.from, files[i].path),
			hint:    "set it up from flags: kubectl oidc-device setup --oidc-issuer-url=URL --oidc-client-id=ID --user=" + shellQuote(s.from) + " --force",
		}
	}
	if s.user == "" {
		if s.user = s.from + "-device"; s.force {
			s.user = s.from
		}
	}
	for _, remark := range s.translate(args) {
		s.ui.say("%s: %s", s.from, remark)
	}
	if s.issuer == "" {
		return nil, &usageError{
			message: fmt.Sprintf("the user %s names no --oidc-issuer-url: it may be of another program that is called kubelogin", s.from),
			hint:    "give --oidc-issuer-url=URL and --oidc-client-id=ID",
		}
	}
	user, _ := item["user"].(tree)
	command, _ := user["exec"].(tree)
	env, _ = command["env"].([]any)
	return env, nil
}

// kubeloginArgs are the flags that an exec entry gives to kubelogin.
func kubeloginArgs(exec *clientcmdapi.ExecConfig) ([]string, bool) {
	return getTokenArguments(exec, "kubelogin", "kubectl-oidc_login", "oidc-login")
}

// Flags of kubelogin, from its documentation (docs/usage.md and pkg/cmd of
// github.com/int128/kubelogin). All but the bools take a value.
var (
	kubeloginBools = []string{
		"oidc-use-access-token", "oidc-use-pkce", "force-refresh", "insecure-skip-tls-verify", "skip-open-browser",
		"tls-renegotiation-once", "tls-renegotiation-freely", "force-keyring", "no-keyring",
		// klog's
		"logtostderr", "alsologtostderr", "add_dir_header", "one_output", "skip_headers", "skip_log_headers",
	}
	// kubeloginSame mean here what they mean there.
	kubeloginSame = []string{
		"oidc-issuer-url", "oidc-client-id", "oidc-extra-scope", "oidc-use-access-token", "oidc-auth-request-extra-params",
		"oidc-pkce-method", "certificate-authority", "certificate-authority-data", "insecure-skip-tls-verify",
		"authentication-timeout-sec", "skip-open-browser", "browser-command",
	}
)

// translate sets the flags that have a counterpart, unless they were given
// here, and says what becomes of the others. No value is repeated: it may be a
// secret.
func (s *setup) translate(args []string) (remarks []string) {
	remark := func(format string, args ...any) { remarks = append(remarks, fmt.Sprintf(format, args...)) }
	given := map[string]bool{}
	s.given.Visit(func(f *pflag.Flag) { given[f.Name] = true })
	seen := map[string]bool{}
	for i := 0; i < len(args); i++ {
		if !strings.HasPrefix(args[i], "-") {
			remark("an argument that belongs to no flag is not taken over")
			continue
		}
		name, value, hasValue := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		switch {
		case hasValue:
		case slices.Contains(kubeloginBools, name):
			value = "true"
		case !strings.HasPrefix(args[i], "--") && len(args[i]) > 2: // -v1
		case i+1 < len(args) && (!strings.HasPrefix(args[i+1], "--") || name == "oidc-client-secret" || name == "password"):
			i++
			value = args[i]
		}
		switch {
		case name == "grant-type" && value == "device-code":
		case name == "grant-type":
			remark("--grant-type=%s becomes the device grant, the only one here: the client must have it switched on at the provider", flow.Clean(value, 40))
		case name == "oidc-client-secret":
			if s.secretFile == "" {
				remark("the client secret is not taken over: put it into a file of mode 0600 and give --oidc-client-secret-file=FILE")
			}
		case name == "oidc-use-pkce" && value == "true":
			s.set(given, "oidc-pkce-method", "S256", remark)
		case name == "token-cache-storage" && (value == "none" || value == "keyring"):
			s.set(given, name, value, remark)
		case name == "force-keyring" && value == "true":
			s.set(given, "token-cache-storage", "keyring", remark)
		case name == "token-cache-storage", name == "no-keyring", name == "force-keyring", name == "oidc-use-pkce":
		case name == "token-cache-dir":
			remark("--token-cache-dir is not taken over: the caches have nothing in common; a new login is needed")
		case name == "force-refresh":
			remark("--force-refresh is not taken over: it would renew the token at each kubectl; by hand: get-token --force-refresh")
		case strings.HasPrefix(name, "certificate-authority") && seen[name]:
			remark("a second --%s is not taken over: put the certificates into one file", name)
		case slices.Contains(kubeloginSame, name):
			if name == "certificate-authority" && strings.HasPrefix(value, "~"+string(filepath.Separator)) {
				if home, err := os.UserHomeDir(); err == nil {
					value = filepath.Join(home, value[2:])
				}
			}
			s.set(given, name, value, remark)
		default:
			remark("--%s has no counterpart", flow.Clean(name, 60))
		}
		seen[name] = true
	}
	if !slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "--grant-type") }) {
		remark("it used the browser flow, and becomes the device grant: the client must have it switched on at the provider")
	}
	return remarks
}

func (s *setup) set(given map[string]bool, name, value string, remark func(string, ...any)) {
	if given[name] {
		return
	}
	if s.given.Set(name, value) != nil { // the cause would quote the value
		remark("the value of --%s makes no sense here", name)
	}
}
