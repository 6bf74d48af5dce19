//! A radix tree over byte strings that visits every stored prefix of a text in one walk.

/// Values under prefixes.
#[derive(Clone, Debug)]
pub(crate) struct Trie<V> {
    nodes: Vec<Node<V>>,
}

#[derive(Clone, Debug)]
struct Node<V> {
    /// What leads here from the parent.
    edge: Box<[u8]>,
    value: V,
    /// First byte of the edge, node; sorted.
    children: Vec<(u8, u32)>,
}

impl<V: Default> Default for Trie<V> {
    fn default() -> Self {
        Trie { nodes: vec![Node { edge: Box::default(), value: V::default(), children: Vec::new() }] }
    }
}

impl<V: Default> Trie<V> {
    /// The value under a prefix, made when there is none.
    pub(crate) fn entry(&mut self, mut key: &[u8]) -> &mut V {
        let mut at = 0;
        loop {
            let Some(&first) = key.first() else { return &mut self.nodes[at].value };
            match self.nodes[at].children.binary_search_by_key(&first, |(byte, _)| *byte) {
                Err(place) => {
                    let leaf = self.push(key);
                    self.nodes[at].children.insert(place, (first, leaf));
                    return &mut self.nodes[leaf as usize].value;
                }
                Ok(place) => {
                    let child = self.nodes[at].children[place].1;
                    let edge = &self.nodes[child as usize].edge;
                    let common = edge.iter().zip(key).take_while(|(a, b)| a == b).count();
                    if common < edge.len() {
                        let upper = self.split(child, common);
                        self.nodes[at].children[place].1 = upper;
                        at = upper as usize;
                    } else {
                        at = child as usize;
                    }
                    key = &key[common..];
                }
            }
        }
    }

    fn push(&mut self, edge: &[u8]) -> u32 {
        self.nodes.push(Node { edge: edge.into(), value: V::default(), children: Vec::new() });
        (self.nodes.len() - 1) as u32
    }

    /// Puts a node above `child` that takes the first bytes of its edge.
    fn split(&mut self, child: u32, at: usize) -> u32 {
        let edge = std::mem::take(&mut self.nodes[child as usize].edge);
        let upper = self.push(&edge[..at]);
        self.nodes[child as usize].edge = edge[at..].into();
        self.nodes[upper as usize].children.push((edge[at], child));
        upper
    }
}

impl<V> Trie<V> {
    /// Calls `visit` with the length and value of every stored prefix of `text`, shortest first.
    #[inline]
    pub(crate) fn prefixes<'a>(&'a self, text: &[u8], mut visit: impl FnMut(usize, &'a V)) {
        let (mut at, mut node) = (0, &self.nodes[0]);
        loop {
            visit(at, &node.value);
            let Some(first) = text.get(at) else { return };
            let Ok(place) = node.children.binary_search_by_key(first, |(byte, _)| *byte) else { return };
            node = &self.nodes[node.children[place].1 as usize];
            if !text[at..].starts_with(&node.edge) {
                return;
            }
            at += node.edge.len();
        }
    }
}
