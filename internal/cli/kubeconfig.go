package cli

import (
	"errors"
	"fmt"
	"io"
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
	if len(files) == 0 {
		return defaultKubeconfig()
	}
	return files
}

func defaultKubeconfig() []string {
	home, err := os.UserHomeDir()
	if err != nil {
		return nil
	}
	return []string{filepath.Join(home, ".kube", "config")}
}

// kubeconfigs is what all of them say together.
type kubeconfigs struct {
	users    []kubeconfigUser
	contexts map[string]clientcmdapi.Context
	order    []string // of the contexts
	clusters map[string]kubeconfigCluster
	current  string
	// kubelogin are the users that run kubectl oidc-login.
	kubelogin []string
}

// kubeconfigUser is a user whose exec entry runs get-token of this program.
type kubeconfigUser struct {
	name, file string
	exec       *clientcmdapi.ExecConfig
	options    *options
	err        error // why its arguments make no sense; its options are then of no use
}

// kubeconfigCluster knows its file: paths in it are relative to that.
type kubeconfigCluster struct {
	clientcmdapi.Cluster
	file string
}

// readKubeconfigs follows client-go's loading rules: files that are not there do
// not matter, and of two entries with one name the first counts. clientcmd
// itself is not imported: it would make each start of the program, and so each
// kubectl, a quarter slower. What can be read comes also with an error.
func readKubeconfigs(files []string) (*kubeconfigs, error) {
	all := &kubeconfigs{contexts: map[string]clientcmdapi.Context{}, clusters: map[string]kubeconfigCluster{}}
	var errs []error
	seen := map[string]bool{} // users
	for _, file := range files {
		b, err := readRegular(file)
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
		if all.current == "" {
			all.current = config.CurrentContext
		}
		for _, c := range config.Contexts {
			if _, ok := all.contexts[c.Name]; !ok {
				all.contexts[c.Name] = c.Context
				all.order = append(all.order, c.Name)
			}
		}
		for _, c := range config.Clusters {
			if _, ok := all.clusters[c.Name]; !ok {
				all.clusters[c.Name] = kubeconfigCluster{c.Cluster, file}
			}
		}
		for _, u := range config.AuthInfos {
			if args, ours := ourArguments(u.AuthInfo.Exec); ours && !seen[u.Name] {
				user := kubeconfigUser{name: u.Name, file: file, exec: u.AuthInfo.Exec}
				user.options, user.err = parseExec(user.exec, args)
				all.users = append(all.users, user)
			}
			if _, theirs := kubeloginArgs(u.AuthInfo.Exec); theirs && !seen[u.Name] {
				all.kubelogin = append(all.kubelogin, u.Name)
			}
			seen[u.Name] = true
		}
	}
	return all, errors.Join(errs...)
}

// readRegular does not wait for a pipe. KUBECONFIG=/dev/null is for none.
func readRegular(path string) ([]byte, error) {
	if path == os.DevNull {
		return nil, nil
	}
	f, _, err := openRegular(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// contextsOf are those of a user.
func (k *kubeconfigs) contextsOf(user string) (names []string) {
	for _, name := range k.order {
		if k.contexts[name].AuthInfo == user {
			names = append(names, name)
		}
	}
	return names
}

// refs leaves out an entry whose arguments make no sense: it has no session.
func (k *kubeconfigs) refs() []kubeconfigRef {
	var refs []kubeconfigRef
	for _, u := range k.users {
		if u.err == nil {
			refs = append(refs, kubeconfigRef{id: u.options.key().ID(), user: u.name, file: u.file, options: u.options, contexts: k.contextsOf(u.name)})
		}
	}
	return refs
}

func kubeconfigRefs() ([]kubeconfigRef, error) {
	all, err := readKubeconfigs(kubeconfigFiles())
	return all.refs(), err
}

// ourArguments are those of an exec entry that runs get-token, after that name.
func ourArguments(exec *clientcmdapi.ExecConfig) (args []string, ours bool) {
	return getTokenArguments(exec, programName)
}

// getTokenArguments are those of an exec entry that runs get-token of one of
// these programs, by itself or, where it is a plugin of that, through kubectl.
func getTokenArguments(exec *clientcmdapi.ExecConfig, programs ...string) ([]string, bool) {
	if exec == nil {
		return nil, false
	}
	args, name := exec.Args, strings.TrimSuffix(filepath.Base(exec.Command), ".exe")
	if name == "kubectl" && len(args) > 0 {
		name, args = "kubectl-"+strings.ReplaceAll(args[0], "-", "_"), args[1:]
	}
	if !slices.Contains(programs, name) || len(args) == 0 || args[0] != "get-token" {
		return nil, false
	}
	return args[1:], true
}

// parseExec reads the flags of an exec entry.
func parseExec(exec *clientcmdapi.ExecConfig, args []string) (*options, error) {
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
	if err := c.Flags().Parse(args); err != nil {
		return nil, flagError(c, err)
	}
	if err := fromEnvironment(c.Flags(), environment); err != nil {
		return nil, err
	}
	return o, o.check()
}
