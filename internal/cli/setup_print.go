package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// sections are what setup prints, in this order; each can be had by itself but
// the last.
var sections = []string{"authentication-config", "flags", "rbac", "kuberc", "next"}

func (s *setup) print(out io.Writer) error {
	pem, err := s.certificates()
	if err != nil {
		return err
	}
	if strings.HasPrefix(s.issuer, "http:") {
		s.ui.warn("kube-apiserver takes an issuer over https only")
	}
	if s.useAccessToken {
		s.ui.warn("the provider decides for whom an access token is: check the audience below against one")
	}
	texts := map[string]struct{ about, text string }{
		"authentication-config": {"a file for kube-apiserver --authentication-config=FILE", s.authenticationConfig(string(pem))},
		"flags":                 {"in place of that file, the older flags of kube-apiserver", s.apiServerFlags(len(pem) > 0)},
		"rbac":                  {"for kubectl apply -f FILE: what the login may do", s.roleBinding()},
		"kuberc":                {"to merge into ~/.kube/kuberc where credential plugins are restricted; kubectl 1.36 and later say command: for name: and take both", kuberc},
		"next":                  {"the commands to type next", s.nextCommands()},
	}
	if s.output != "all" {
		_, err = io.WriteString(out, texts[s.output].text)
		return err
	}
	for i, name := range sections {
		if i > 0 {
			fmt.Fprintln(out)
		}
		if _, err = fmt.Fprintf(out, "# %s: %s\n%s", name, texts[name].about, texts[name].text); err != nil {
			return err
		}
	}
	return nil
}

func (s *setup) authenticationConfig(pem string) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("apiVersion: apiserver.config.k8s.io/v1")
	line("kind: AuthenticationConfiguration")
	line("jwt:")
	line("- issuer:")
	line("    url: %s", scalar(s.issuer))
	line("    audiences:")
	line("    - %s", scalar(s.clientID))
	if pem != "" {
		line("    certificateAuthority: |")
		for l := range strings.Lines(strings.TrimSpace(pem)) {
			line("      %s", strings.TrimSpace(l))
		}
	}
	line("  claimMappings:")
	line("    username:")
	line("      claim: %s", scalar(s.usernameClaim))
	line("      prefix: %s", scalar(s.claimPrefix))
	line("    groups:")
	line("      claim: %s", scalar(s.groupsClaim))
	line("      prefix: %s", scalar(s.claimPrefix))
	return b.String()
}

func (s *setup) apiServerFlags(ownCA bool) string {
	flags := []string{"oidc-issuer-url=" + s.issuer, "oidc-client-id=" + s.clientID, "oidc-username-claim=" + s.usernameClaim}
	if s.claimPrefix == "" {
		flags = append(flags, "oidc-username-prefix=-") // its way to say none
	} else {
		flags = append(flags, "oidc-username-prefix="+s.claimPrefix)
	}
	flags = append(flags, "oidc-groups-claim="+s.groupsClaim)
	if s.claimPrefix != "" {
		flags = append(flags, "oidc-groups-prefix="+s.claimPrefix)
	}
	if ownCA {
		file := "/etc/kubernetes/oidc-ca.pem"
		if s.caFile != "" && s.caData == "" {
			file = absolute(s.caFile)
		}
		if s.output == "all" || s.output == "flags" {
			s.ui.say("--oidc-ca-file=%s is a file on the API server's machine: put the provider's certificates there", file)
		}
		flags = append(flags, "oidc-ca-file="+file)
	}
	return "--" + strings.Join(flags, "\n--") + "\n"
}

func (s *setup) roleBinding() string {
	kind, name := "Group", s.rbacGroup
	switch {
	case s.rbacUser != "":
		kind, name = "User", s.rbacUser
	case name == "":
		name = "GROUP" // for a person to replace, or --rbac-group
	}
	return `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: oidc-device-view
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: view
subjects:
- apiGroup: rbac.authorization.k8s.io
  kind: ` + kind + `
  name: ` + scalar(s.claimPrefix+name) + "\n"
}

// kuberc is as k8s.io/kubectl/pkg/config/v1beta1 has it (Preference,
// AllowlistEntry). kubectl 1.35 knows an entry's name alone; 1.36 calls it
// command and takes name for as long as there is v1beta1
// (https://github.com/kubernetes/kubernetes/pull/137272). So name is what each
// kubectl of this apiVersion understands.
const kuberc = `apiVersion: kubectl.config.k8s.io/v1beta1
kind: Preference
credentialPluginPolicy: Allowlist
credentialPluginAllowlist:
- name: ` + programName + "\n"

func (s *setup) nextCommands() string {
	kubectl := "kubectl"
	if s.kubeconfig != "" {
		kubectl += " --kubeconfig=" + shellQuote(s.kubeconfig)
	}
	if s.context != "" {
		return kubectl + " --context=" + shellQuote(s.context) + " auth whoami\n"
	}
	return kubectl + " config set-context --current --user=" + shellQuote(s.user) + "\n" + kubectl + " auth whoami\n"
}

// scalar is a text as YAML writes it on one line.
func scalar(text string) string {
	if strings.ContainsAny(text, "\n\r") {
		return fmt.Sprintf("%q", text)
	}
	b, err := yaml.Marshal(text)
	if err != nil {
		return fmt.Sprintf("%q", text)
	}
	return strings.TrimSuffix(string(b), "\n")
}

const redacted = "REDACTED"

// shown is an item of users for people to see, line by line. Of what may be a
// secret only the name is shown, and what is not known may be one.
func shown(item tree) []string {
	user := tree{}
	inner, _ := item["user"].(tree)
	for name := range inner {
		user[name] = redacted
	}
	if e, ok := inner["exec"].(tree); ok {
		command := tree{}
		for name, value := range e {
			switch name {
			case "apiVersion", "command", "interactiveMode", "installHint", "provideClusterInfo":
				command[name] = value
			case "args":
				command[name] = shownArgs(value)
			case "env":
				var names []any
				env, _ := value.([]any)
				for _, v := range env {
					if m, ok := v.(tree); ok {
						names = append(names, tree{"name": m["name"], "value": redacted})
					}
				}
				command[name] = names
			default:
				command[name] = redacted
			}
		}
		user["exec"] = command
	}
	b, err := yaml.Marshal([]any{tree{"name": item["name"], "user": user}})
	if err != nil {
		return []string{redacted}
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

// shownArgs keeps the words that start a known plugin, the flags that this
// program has too, and of other flags the names.
func shownArgs(value any) []string {
	var args, safe []string
	switch v := value.(type) {
	case []string:
		args = v
	case []any:
		for _, a := range v {
			args = append(args, fmt.Sprint(a))
		}
	}
	known := (&options{}).sessionFlags()
	for _, a := range args {
		name, _, hasValue := strings.Cut(a, "=")
		f := known.Lookup(strings.TrimPrefix(name, "--"))
		switch {
		case slices.Contains([]string{"get-token", "oidc-login", "oidc_login", "oidc-device", "oidc_device"}, a):
		case !strings.HasPrefix(a, "--"):
			a = redacted
		case hasValue && (f == nil || f.Name == "oidc-client-secret"):
			a = name + "=" + redacted
		}
		safe = append(safe, a)
	}
	return safe
}

// difference is of two short texts: the lines that left, came and stayed.
func difference(old, new []string) []string {
	// The longest common sequence from each pair of lines on.
	common := make([][]int, len(old)+1)
	for i := range common {
		common[i] = make([]int, len(new)+1)
	}
	for i := len(old) - 1; i >= 0; i-- {
		for j := len(new) - 1; j >= 0; j-- {
			if common[i][j] = max(common[i+1][j], common[i][j+1]); old[i] == new[j] {
				common[i][j] = common[i+1][j+1] + 1
			}
		}
	}
	var lines []string
	for i, j := 0, 0; i < len(old) || j < len(new); {
		switch {
		case i < len(old) && j < len(new) && old[i] == new[j]:
			lines = append(lines, " "+old[i])
			i, j = i+1, j+1
		case i < len(old) && (j == len(new) || common[i+1][j] >= common[i][j+1]):
			lines = append(lines, "-"+old[i])
			i++
		default:
			lines = append(lines, "+"+new[j])
			j++
		}
	}
	return lines
}
