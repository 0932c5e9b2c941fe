package analysis

// paths calls f for boxes that lead to leaves, each packet in one box. At most limit boxes are given, but
// at least one for each leaf. more tells f that some are missing.
func (d *diagram) paths(root *node, limit int, f func(leaf *node, b *box, more bool)) {
	total := d.count(root, map[*node]int{}, limit)
	if total <= limit {
		d.follow(root, &box{}, func(leaf *node, b *box) { f(leaf, b, false) })
		return
	}
	seen := map[*node]bool{}
	d.followNew(root, &box{}, seen, func(leaf *node, b *box) { f(leaf, b, true) })
}

// count is how many boxes there are, or some number above limit.
func (d *diagram) count(n *node, known map[*node]int, limit int) int {
	if n.decision != nil {
		return 1
	}
	total, ok := known[n]
	if !ok {
		for _, e := range n.edges {
			total = min(total+d.count(e.to, known, limit), limit+1)
		}
		known[n] = total
	}
	return total
}

func (d *diagram) follow(n *node, b *box, f func(leaf *node, b *box)) {
	if n.decision != nil {
		f(n, b)
		return
	}
	for _, e := range n.edges {
		b[d.order[n.level]] = d.valuesOf(n.level, e.classes)
		d.follow(e.to, b, f)
	}
}

// followNew is follow that goes to each node once.
func (d *diagram) followNew(n *node, b *box, seen map[*node]bool, f func(leaf *node, b *box)) {
	if seen[n] {
		return
	}
	seen[n] = true
	if n.decision != nil {
		f(n, b)
		return
	}
	for _, e := range n.edges {
		b[d.order[n.level]] = d.valuesOf(n.level, e.classes)
		d.followNew(e.to, b, seen, f)
	}
}

func (d *diagram) valuesOf(level int, classes []int) *set {
	var spans []span
	for _, c := range classes {
		spans = append(spans, d.classes[level][c].values...)
	}
	return newSet(spans)
}
