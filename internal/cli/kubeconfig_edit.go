package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	clientcmdapi "k8s.io/client-go/tools/clientcmd/api/v1"
	"sigs.k8s.io/yaml"
)

// kubeconfigEdit is a change to one kubeconfig: the user gets an entry, or a
// context gets the user, or both.
//
// clientcmd would do it, but with it each start of the program, and so each
// kubectl, would be a quarter slower, and it drops comments, order and fields
// that it does not know. Here the lines of the entry are replaced, and the
// rest stays byte for byte. A scan of lines is no parser, so the outcome is
// parsed and must be exactly the change that was wanted; where it is not, for
// instance in a kubeconfig in JSON, the whole file is written anew from what
// was parsed, which loses comments and order but no field.
type kubeconfigEdit struct {
	user    string
	entry   map[string]any // what stands below user:; nil: it stays
	context string         // "": none
}

// tree is a kubeconfig as any YAML, so that no field is lost.
type tree = map[string]any

var errNotKubeconfig = errors.New("is not a kubeconfig")

func parseTree(text []byte) (tree, error) {
	var t tree
	var known clientcmdapi.Config
	// The causes are left out: they could quote the file.
	if yaml.Unmarshal(text, &t, exactNumbers) != nil || yaml.Unmarshal(text, &known) != nil {
		return nil, errNotKubeconfig
	}
	if t == nil {
		t = tree{}
	}
	return t, nil
}

func exactNumbers(d *json.Decoder) *json.Decoder { d.UseNumber(); return d }

// apply gives the changed text, and whether all else in it is as it was to the
// byte.
func (e kubeconfigEdit) apply(text []byte) (changed []byte, exact bool, err error) {
	want, err := parseTree(text)
	if err == nil && len(bytes.TrimSpace(text)) == 0 {
		text = []byte("apiVersion: v1\nkind: Config\n")
		want, err = parseTree(text)
	}
	if err != nil {
		return nil, false, err
	}
	if err := e.inTree(want); err != nil {
		return nil, false, err
	}
	whole, err := yaml.Marshal(want)
	if err != nil {
		return nil, false, err
	}
	// As it will be read: of the types that parsing gives.
	if want, err = parseTree(whole); err != nil {
		return nil, false, err
	}
	if spliced, ok := e.inText(string(text)); ok {
		if got, err := parseTree([]byte(spliced)); err == nil && reflect.DeepEqual(got, want) {
			return []byte(spliced), true, nil
		}
	}
	if json.Valid(text) {
		whole, err = json.MarshalIndent(want, "", "    ")
		return append(whole, '\n'), false, err
	}
	if regexp.MustCompile(`(?m)^[^#\s](?s:.*)^(---|\.\.\.)`).Match(text) {
		return nil, false, errors.New("holds several documents")
	}
	return whole, false, nil
}

// findNamed finds the item of a list of a kubeconfig; nil: it is not there.
func findNamed(t tree, list, name string) (tree, error) {
	items, ok := t[list].([]any)
	if !ok && t[list] != nil {
		return nil, errNotKubeconfig
	}
	for _, item := range items {
		if m, ok := item.(tree); ok && m["name"] == name {
			return m, nil
		}
	}
	return nil, nil
}

func (e kubeconfigEdit) inTree(t tree) error {
	if e.entry != nil {
		item, err := findNamed(t, "users", e.user)
		if err != nil {
			return err
		}
		if item == nil {
			item = tree{"name": e.user}
			users, _ := t["users"].([]any)
			t["users"] = append(users, item)
		}
		item["user"] = e.entry
	}
	if e.context != "" {
		item, err := findNamed(t, "contexts", e.context)
		if err != nil {
			return err
		}
		if item == nil {
			return fmt.Errorf("has no context %s", e.context)
		}
		inner, ok := item["context"].(tree)
		if !ok {
			inner = tree{}
			item["context"] = inner
		}
		inner["user"] = e.user
	}
	return nil
}

// inText does the same to the lines of a kubeconfig as kubectl and people
// write it. What it gives is for apply to judge.
func (e kubeconfigEdit) inText(text string) (string, bool) {
	ending := "\n"
	if strings.Contains(text, "\r\n") {
		ending = "\r\n"
		text = strings.ReplaceAll(text, "\r\n", "\n")
	}
	final := strings.HasSuffix(text, "\n") // else what comes last has no line end of its own
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	ok := true
	if e.entry != nil {
		lines, ok = e.userInLines(lines)
	}
	if ok && e.context != "" {
		lines, ok = e.contextInLines(lines)
	}
	text = strings.Join(lines, ending)
	if final || e.entry != nil {
		text += ending
	}
	return text, ok
}

func (e kubeconfigEdit) userInLines(lines []string) ([]string, bool) {
	b, err := yaml.Marshal([]any{tree{"name": e.user, "user": e.entry}})
	if err != nil {
		return nil, false
	}
	block := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	at, items := listItems(lines, "users")
	if at < 0 {
		return append(append(lines, "users:"), block...), true
	}
	if len(items) == 0 {
		return splice(lines, at, at+1, append([]string{"users:"}, block...)), true
	}
	for i := range block {
		block[i] = items[0].indent + block[i]
	}
	for _, item := range items {
		if item.name == e.user {
			return splice(lines, item.from, item.to, block), true
		}
	}
	end := items[len(items)-1].to
	return splice(lines, end, end, block), true
}

func (e kubeconfigEdit) contextInLines(lines []string) ([]string, bool) {
	b, err := yaml.Marshal(e.user)
	if err != nil {
		return nil, false
	}
	name := strings.TrimSpace(string(b))
	// Not at the top of the package: each start of the program would pay.
	userLine := regexp.MustCompile(`^( *(?:- )?)user:(?: +.*?)??( +#.*)?$`)
	contextLine := regexp.MustCompile(`^( *)(?:- )?context: *(?:#.*)?$`)
	inBraces := regexp.MustCompile(`^( *(?:- )?context: *\{)(?:(.*[{, ])?(user: *)[^,}]*)?(.*)$`)
	_, items := listItems(lines, "contexts")
	i := slices.IndexFunc(items, func(item listItem) bool { return item.name == e.context })
	if i < 0 {
		return nil, false
	}
	for n := items[i].from; n < items[i].to; n++ {
		if m := userLine.FindStringSubmatch(lines[n]); m != nil {
			return splice(lines, n, n+1, []string{m[1] + "user: " + name + m[2]}), true
		}
	}
	for n := items[i].from; n < items[i].to; n++ {
		m := inBraces.FindStringSubmatch(lines[n])
		switch {
		case m == nil:
		case m[3] != "":
			return splice(lines, n, n+1, []string{m[1] + m[2] + m[3] + name + m[4]}), true
		default:
			return splice(lines, n, n+1, []string{m[1] + "user: " + name + ", " + m[4]}), true
		}
	}
	for n := items[i].from; n+1 < items[i].to; n++ {
		if contextLine.MatchString(lines[n]) {
			return splice(lines, n+1, n+1, []string{indentOf(lines[n+1]) + "user: " + name}), true
		}
	}
	return nil, false
}

// listItem is an item of a list at the top of a kubeconfig: the lines from to
// to, without the comments around it.
type listItem struct {
	name, indent string
	from, to     int
}

// listItems finds the line of a list's key, or -1, and its items.
func listItems(lines []string, key string) (at int, items []listItem) {
	at = slices.IndexFunc(lines, func(l string) bool { return l == key+":" || strings.HasPrefix(l, key+": ") })
	if at < 0 {
		return at, nil
	}
	blank := func(l string) bool { l = strings.TrimSpace(l); return l == "" || l[0] == '#' }
	end := at + 1
	for end < len(lines) && (blank(lines[end]) || strings.HasPrefix(lines[end], " ") || strings.HasPrefix(lines[end], "- ")) {
		end++
	}
	for n := at + 1; n < end; n++ {
		if indent := indentOf(lines[n]); strings.HasPrefix(lines[n][len(indent):], "- ") && (len(items) == 0 || indent == items[0].indent) {
			items = append(items, listItem{indent: indent, from: n})
		}
	}
	for i := range items {
		item := &items[i]
		if item.to = end; i+1 < len(items) {
			item.to = items[i+1].from
		}
		for item.to > item.from+1 && blank(lines[item.to-1]) {
			item.to--
		}
		// A list of one; an item that is none by itself has no name.
		var one []struct{ Name string }
		if yaml.Unmarshal([]byte(strings.Join(lines[item.from:item.to], "\n")), &one) == nil && len(one) == 1 {
			item.name = one[0].Name
		}
	}
	return at, items
}

func indentOf(line string) string { return line[:len(line)-len(strings.TrimLeft(line, " "))] }

func splice(lines []string, from, to int, by []string) []string {
	return slices.Concat(lines[:from], by, lines[to:])
}
