package analysis

// paths calls f for boxes that lead to leaves, each packet in one box. At most limit boxes are given, but
// at least one for each leaf. more tells f that some are missing.
func (d *diagram) paths(root *node, limit int, f func(leaf *node, c *cell, more bool)) {
	total := d.count(root, map[*node]int{}, limit)
	if total <= limit {
		d.follow(root, &cell{}, func(leaf *node, c *cell) { f(leaf, c, false) })
		return
	}
	seen := map[*node]bool{}
	d.followNew(root, &cell{}, seen, func(leaf *node, c *cell) { f(leaf, c, true) })
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

func (d *diagram) follow(n *node, c *cell, f func(leaf *node, c *cell)) {
	if n.decision != nil {
		f(n, c)
		return
	}
	for _, e := range n.edges {
		c[d.order[n.level]] = bitmapOf(e.classes)
		d.follow(e.to, c, f)
	}
}

// followNew is follow that goes to each node once.
func (d *diagram) followNew(n *node, c *cell, seen map[*node]bool, f func(leaf *node, c *cell)) {
	if seen[n] {
		return
	}
	seen[n] = true
	if n.decision != nil {
		f(n, c)
		return
	}
	for _, e := range n.edges {
		c[d.order[n.level]] = bitmapOf(e.classes)
		d.followNew(e.to, c, seen, f)
	}
}

// box is the values of a box of classes.
func (d *diagram) box(c *cell) (b box) {
	for level, f := range d.order {
		b[f] = d.divisions[level].values(c[f])
	}
	return b
}
