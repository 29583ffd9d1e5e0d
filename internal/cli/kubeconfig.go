package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api/v1"
	"sigs.k8s.io/yaml"
)

// kubeconfigRef is a user of a kubeconfig whose exec entry runs this program.
type kubeconfigRef struct {
	id       string // of the session
	user     string
	contexts []string
	file     string
	options  *options // as its arguments and environment say
}

// kubeconfigFiles are those that kubectl reads: the list in $KUBECONFIG, else
// ~/.kube/config.
func kubeconfigFiles() []string {
	var files []string
	for _, f := range filepath.SplitList(os.Getenv("KUBECONFIG")) {
		if f != "" && !slices.Contains(files, f) {
			files = append(files, f)
		}
	}
	if home, err := os.UserHomeDir(); len(files) == 0 && err == nil {
		files = []string{filepath.Join(home, ".kube", "config")}
	}
	return files
}

// kubeconfigRefs reads the kubeconfigs by client-go's loading rules: files that
// are not there do not matter, and of two entries with one name the first
// counts. clientcmd itself is not imported: it would make each start of the
// program, and so each kubectl, a quarter slower. An entry of ours whose
// arguments make no sense is left out: it has no session.
func kubeconfigRefs() ([]kubeconfigRef, error) {
	var refs []kubeconfigRef
	var errs []error
	seen := map[string]bool{} // "user x", "context x"
	contexts := map[string][]string{}
	for _, file := range kubeconfigFiles() {
		b, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var config clientcmdapi.Config
		if err == nil {
			err = yaml.Unmarshal(b, &config)
		}
		if err != nil {
			// Without yaml's own words, which could quote the file.
			errs = append(errs, fmt.Errorf("the kubeconfig %s cannot be read", file))
			continue
		}
		for _, c := range config.Contexts {
			if !seen["context "+c.Name] {
				contexts[c.Context.AuthInfo] = append(contexts[c.Context.AuthInfo], c.Name)
			}
			seen["context "+c.Name] = true
		}
		for _, u := range config.AuthInfos {
			if !seen["user "+u.Name] && u.AuthInfo.Exec != nil {
				if o, ok := parseExec(u.AuthInfo.Exec); ok {
					refs = append(refs, kubeconfigRef{id: o.key().ID(), user: u.Name, file: file, options: o})
				}
			}
			seen["user "+u.Name] = true
		}
	}
	for i := range refs {
		refs[i].contexts = contexts[refs[i].user]
	}
	return refs, errors.Join(errs...)
}

// ownArgs are the flags that an exec entry gives to get-token of this program.
func ownArgs(exec *clientcmdapi.ExecConfig) ([]string, bool) {
	args := exec.Args
	switch name := strings.TrimSuffix(filepath.Base(exec.Command), ".exe"); {
	case name == "kubectl-oidc_device":
	case name == "kubectl" && len(args) > 0 && (args[0] == "oidc-device" || args[0] == "oidc_device"):
		args = args[1:]
	default:
		return nil, false
	}
	if len(args) == 0 || args[0] != "get-token" {
		return nil, false
	}
	return args[1:], true
}

// parseExec reads the flags of an exec entry that runs get-token.
func parseExec(exec *clientcmdapi.ExecConfig) (*options, bool) {
	args, ok := ownArgs(exec)
	if !ok {
		return nil, false
	}
	o := &options{}
	c := &cobra.Command{}
	o.addGetTokenFlags(c, new(string))
	environment := func(name string) (string, bool) {
		for _, e := range exec.Env {
			if e.Name == name {
				return e.Value, true
			}
		}
		return os.LookupEnv(name)
	}
	if c.Flags().Parse(args) != nil || fromEnvironment(c.Flags(), environment) != nil || o.check() != nil {
		return nil, false
	}
	return o, true
}
